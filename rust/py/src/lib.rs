//! `postillion._core`: the cores under their Python names. Conversions only; nothing is decided here.

use pyo3::prelude::*;

mod delivery;
mod journal;
mod log;

#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::delivery::{AgentLink, DeliveryJob, JobRecipient, JobStatus};
    #[pymodule_export]
    use crate::journal::{Journal, QueueError, read_queue};
    #[pymodule_export]
    use crate::log::Log;
}
