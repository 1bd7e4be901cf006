"""Templates: replace `transport` by the name of a transport in master.cf, as in `relay_destination_rate_delay`.

Rows: name, kind (see kinds.py), default, what it is."""

ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("transport_delivery_slot_cost", "number 0..", "$default_delivery_slot_cost", ""),
    ("transport_delivery_slot_discount", "number 0..100", "$default_delivery_slot_discount", ""),
    ("transport_delivery_slot_loan", "number 0..", "$default_delivery_slot_loan", ""),
    (
        "transport_destination_concurrency_failed_cohort_limit",
        "number 0..",
        "$default_destination_concurrency_failed_cohort_limit",
        "",
    ),
    ("transport_destination_concurrency_limit", "number 0..", "$default_destination_concurrency_limit", ""),
    (
        "transport_destination_concurrency_negative_feedback",
        "text",
        "$default_destination_concurrency_negative_feedback",
        "",
    ),
    (
        "transport_destination_concurrency_positive_feedback",
        "text",
        "$default_destination_concurrency_positive_feedback",
        "",
    ),
    ("transport_destination_rate_delay", "time 0..", "$default_destination_rate_delay", ""),
    ("transport_destination_recipient_limit", "number 0..", "$default_destination_recipient_limit", ""),
    ("transport_extra_recipient_limit", "number 0..", "$default_extra_recipient_limit", ""),
    ("transport_initial_destination_concurrency", "number 1..", "$initial_destination_concurrency", ""),
    ("transport_minimum_delivery_slots", "number 0..", "$default_minimum_delivery_slots", ""),
    ("transport_recipient_limit", "number 0..", "$default_recipient_limit", ""),
    ("transport_recipient_refill_delay", "time 1..", "$default_recipient_refill_delay", ""),
    ("transport_recipient_refill_limit", "number 1..", "$default_recipient_refill_limit", ""),
    ("transport_time_limit", "time 1..", "$command_time_limit", ""),
    ("transport_transport_rate_delay", "time 0..", "$default_transport_rate_delay", ""),
)
