//! The words of a listing for the reason why a message waits.

use super::scheduler::waits::Waits;
use std::borrow::Cow;

/// Return the reason why a message waits, as a phrase after `waits`; and its end if that is known (microseconds since
/// 1970).
pub fn waits_for(waits: &Waits) -> (Cow<'static, str>, Option<u64>) {
    let hop = |transport: &str, nexthop: &str| match nexthop {
        "" => transport.to_owned(),
        _ => format!("{transport}:{nexthop}"),
    };
    match waits {
        Waits::Held => ("until it is released from hold".into(), None),
        Waits::Deferred { until_us, .. } => ("for its next attempt".into(), Some(*until_us)),
        Waits::NoRoom => ("for room in the active queue".into(), None),
        Waits::Overflow { transport, nexthop } => {
            (format!("for room: {} has its share of the active queue", hop(transport, nexthop)).into(), None)
        }
        Waits::Reading => ("for the disk".into(), None),
        Waits::Resolving => ("to hear where it goes".into(), None),
        Waits::TransportDead { transport, until_us, reason } => {
            (format!("until {transport} is tried again ({})", reason.text).into(), Some(*until_us))
        }
        Waits::DestinationDead { transport, nexthop, until_us, reason } => {
            (format!("until {} is tried again ({})", hop(transport, nexthop), reason.text).into(), Some(*until_us))
        }
        Waits::RateDelay { transport, nexthop, until_us } => {
            (format!("for the rate delay of {}", hop(transport, nexthop)).into(), Some(*until_us))
        }
        Waits::Concurrency { transport, nexthop, limit } => {
            (format!("for one of {limit} deliveries to {} to end", hop(transport, nexthop)).into(), None)
        }
        Waits::NoAgent { transport } => (format!("for an agent of {transport}").into(), None),
        Waits::AgentsBusy { transport } => (format!("for a free agent of {transport}").into(), None),
        Waits::WithAgent { transport, nexthop, .. } => {
            (format!("for the answer of {}", hop(transport, nexthop)).into(), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_its_words_and_its_end() {
        for (waits, text, until_us) in [
            (Waits::Held, "until it is released from hold", None),
            (Waits::Deferred { until_us: 7, attempts: 1 }, "for its next attempt", Some(7)),
            (
                Waits::Concurrency { transport: "smtp".into(), nexthop: "x.example".into(), limit: 5 },
                "for one of 5 deliveries to smtp:x.example to end",
                None,
            ),
            (
                Waits::RateDelay { transport: "local".into(), nexthop: "".into(), until_us: 9 },
                "for the rate delay of local",
                Some(9),
            ),
        ] {
            assert_eq!(waits_for(&waits), (text.into(), until_us));
        }
    }
}
