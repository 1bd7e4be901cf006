//! `postillion._core`: the cores under their Python names. Conversions only; nothing is decided here.

use pyo3::prelude::*;

mod bench;
mod cleanup;
mod delivery;
mod intake;
mod journal;
mod log;
mod maildrop;
mod qmgr;
mod smtp;
mod smtpd;
mod smtpd_service;
mod stored;

#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::bench::{BenchSink, BenchSource};
    #[pymodule_export]
    use crate::cleanup::{CleanupSettings, Submission};
    #[pymodule_export]
    use crate::delivery::{AgentLink, DeliveryJob, JobRecipient, JobStatus};
    #[pymodule_export]
    use crate::intake::SmtpIntake;
    #[pymodule_export]
    use crate::journal::{Journal, QueueError, list_queue, repair_queue};
    #[pymodule_export]
    use crate::log::Log;
    #[pymodule_export]
    use crate::maildrop::{
        HeaderRecipients, Maildrop, MaildropReader, MaildropWriter, maildrop_envelope, parse_addresses,
    };
    #[pymodule_export]
    use crate::qmgr::QueueManager;
    #[pymodule_export]
    use crate::smtp::{SmtpClient, SmtpClientSettings};
    #[pymodule_export]
    use crate::smtpd::{SmtpdConfig, SmtpdSession};
    #[pymodule_export]
    use crate::smtpd_service::SmtpdService;
    #[pymodule_export]
    use crate::stored::{StoredMessage, read_message};
}
