"""Templates: replace `transport` by the name of a transport in master.cf, as in `relay_destination_rate_delay`.

Rows: name, kind (see kinds.py), default, what it is, and what its value does without a program that reads it (see
effect.py).
"""

ROWS: tuple[tuple[str, ...], ...] = (
    (
        "transport_delivery_slot_cost",
        "number 0..",
        "$default_delivery_slot_cost",
        "default_delivery_slot_cost of one transport.",
    ),
    (
        "transport_delivery_slot_discount",
        "number 0..100",
        "$default_delivery_slot_discount",
        "default_delivery_slot_discount of one transport.",
    ),
    (
        "transport_delivery_slot_loan",
        "number 0..",
        "$default_delivery_slot_loan",
        "default_delivery_slot_loan of one transport.",
    ),
    (
        "transport_destination_concurrency_failed_cohort_limit",
        "number 0..",
        "$default_destination_concurrency_failed_cohort_limit",
        "default_destination_concurrency_failed_cohort_limit of one transport.",
    ),
    (
        "transport_destination_concurrency_limit",
        "number 0..",
        "$default_destination_concurrency_limit",
        "default_destination_concurrency_limit of one transport.",
    ),
    (
        "transport_destination_concurrency_negative_feedback",
        "feedback",
        "$default_destination_concurrency_negative_feedback",
        "default_destination_concurrency_negative_feedback of one transport.",
    ),
    (
        "transport_destination_concurrency_positive_feedback",
        "feedback",
        "$default_destination_concurrency_positive_feedback",
        "default_destination_concurrency_positive_feedback of one transport.",
    ),
    (
        "transport_destination_rate_delay",
        "time 0..",
        "$default_destination_rate_delay",
        "default_destination_rate_delay of one transport.",
    ),
    (
        "transport_destination_recipient_limit",
        "number 0..",
        "$default_destination_recipient_limit",
        "default_destination_recipient_limit of one transport.",
    ),
    (
        "transport_extra_recipient_limit",
        "number 0..",
        "$default_extra_recipient_limit",
        "default_extra_recipient_limit of one transport.",
    ),
    (
        "transport_initial_destination_concurrency",
        "number 1..",
        "$initial_destination_concurrency",
        "initial_destination_concurrency of one transport.",
    ),
    (
        "transport_minimum_delivery_slots",
        "number 0..",
        "$default_minimum_delivery_slots",
        "default_minimum_delivery_slots of one transport.",
    ),
    (
        "transport_recipient_limit",
        "number 0..",
        "$default_recipient_limit",
        "default_recipient_limit of one transport.",
    ),
    (
        "transport_recipient_refill_delay",
        "time 1..",
        "$default_recipient_refill_delay",
        "default_recipient_refill_delay of one transport.",
    ),
    (
        "transport_recipient_refill_limit",
        "number 1..",
        "$default_recipient_refill_limit",
        "default_recipient_refill_limit of one transport.",
    ),
    (
        "transport_time_limit",
        "time 1..",
        "$command_time_limit",
        "command_time_limit of one transport of pipe or spawn.",
        "harmless",
    ),
    (
        "transport_transport_rate_delay",
        "time 0..",
        "$default_transport_rate_delay",
        "default_transport_rate_delay of one transport.",
    ),
)
