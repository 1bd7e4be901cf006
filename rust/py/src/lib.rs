//! `postillion._core`: the cores under their Python names. It only converts; the cores decide.
//!
//! Each module of `postillion_core` that Python uses has a submodule, and a file here.

use pyo3::prelude::*;

mod accounts;
mod address;
mod ask;
mod bench;
mod checks;
mod cleanup;
mod config;
mod delivery;
mod dns;
mod log;
mod pickup;
mod qmgr;
mod queue;
mod smtp;
mod smtpd;
mod tables;
mod tls;

#[pymodule]
mod _core {
    use pyo3::prelude::*;
    use pyo3::types::{PyCFunction, PyDict};

    #[pymodule]
    mod accounts {
        #[pymodule_export]
        use crate::accounts::{line, user, user_of};
    }

    #[pymodule]
    mod address {
        #[pymodule_export]
        use crate::address::{AddressRules, canonical, may_route, quote};
    }

    #[pymodule]
    mod bench {
        #[pymodule_export]
        use crate::bench::{BenchSink, BenchSource};
    }

    #[pymodule]
    mod cleanup {
        #[pymodule_export]
        use crate::cleanup::{CleanupSettings, Intake, Options, Rehearsal};
    }

    #[pymodule]
    mod delivery {
        #[pymodule_export]
        use crate::delivery::{
            AgentLink, DeliveryJob, DeliveryService, JobRecipient, JobStatus, Request, TracedStatus,
        };
    }

    #[pymodule]
    mod dns {
        #[pymodule_export]
        use crate::dns::Stub;
    }

    #[pymodule]
    mod log {
        #[pymodule_export]
        use crate::log::Log;
    }

    #[pymodule]
    mod pickup {
        #[pymodule_export]
        use crate::pickup::{
            HeaderRecipients, Maildrop, MaildropReader, MaildropWriter, maildrop_envelope, parse_addresses,
        };
    }

    #[pymodule]
    mod qmgr {
        #[pymodule_export]
        use crate::qmgr::{QueueManager, check_settings};
    }

    #[pymodule]
    mod queue {
        #[pymodule_export]
        use crate::queue::{Journal, QueueError, StoredMessage, convert_queue, list_queue, read_message, repair_queue};
    }

    #[pymodule]
    mod smtp {
        #[pymodule_export]
        use crate::smtp::{SmtpClientSettings, SmtpIntake, SmtpLogin};
        use pyo3::prelude::*;
        use pyo3::types::PyTuple;

        #[pymodule_init]
        fn add_names(module: &Bound<'_, PyModule>) -> PyResult<()> {
            let names = PyTuple::new(module.py(), crate::smtp::sasl_mechanisms())?;
            module.add("SASL_MECHANISMS", names)
        }
    }

    #[pymodule]
    mod smtpd {
        #[pymodule_export]
        use crate::smtpd::{Next, Request, SmtpdConfig, SmtpdService, SmtpdSession};
    }

    #[pymodule]
    mod tables {
        #[pymodule_export]
        use crate::tables::{Index, Table, TableError, TableTypeError, answer_lines, open_table, table_types};
    }

    #[pymodule]
    mod tls {
        #[pymodule_export]
        use crate::tls::channel::TlsChannel;
        #[pymodule_export]
        use crate::tls::client::{TlsClient, TlsPolicy};
        #[pymodule_export]
        use crate::tls::{TlsServer, compile_version, public_key_algorithms, run_version, self_signed_chain};
    }

    /// Set the full names of the submodules and their functions, and make them importable: an extension module has no
    /// path to find them.
    #[pymodule_init]
    fn name_submodules(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let loaded = module.py().import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
        for (name, value) in module.dict() {
            if let Ok(submodule) = value.cast::<PyModule>() {
                let name = format!("postillion._core.{name}");
                submodule.setattr("__name__", &name)?;
                for function in submodule.dict().values().iter().filter(Bound::is_instance_of::<PyCFunction>) {
                    function.setattr("__module__", &name)?;
                }
                loaded.set_item(name, submodule)?;
            }
        }
        Ok(())
    }
}
