//! Calls that make no sense.

use super::EVENTS;
use crate::burst::{ACCOUNTS, CAUSES, PROFILES};
use crate::feature::BadFeature;

/// A call that makes no sense; the text says what would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A machine of so many CPUs.
    Cpus(usize),
    /// So many events to tally.
    Events(usize),
    /// Features that a CPU cannot have.
    Features {
        /// The CPU.
        cpu: usize,
        /// What is wrong with them.
        error: BadFeature,
    },
    /// No such CPU.
    NoCpu {
        /// The one asked for.
        cpu: usize,
        /// How many there are.
        cpus: usize,
    },
    /// No such context.
    NoContext {
        /// The one asked for.
        context: usize,
        /// How many there are.
        contexts: usize,
    },
    /// No such profile.
    NoProfile {
        /// The one asked for.
        profile: usize,
        /// How many there are.
        profiles: usize,
    },
    /// One profile more than a COMPUTE can name.
    Profiles,
    /// An exception level that the context does not have.
    NoLevel {
        /// The level.
        el: u8,
        /// The context is a guest's.
        guest: bool,
    },
    /// The context runs on another CPU.
    Runs {
        /// The context.
        context: usize,
        /// Where it runs.
        cpu: usize,
    },
    /// Nothing runs on the CPU that is to execute.
    NothingRuns(usize),
    /// No such cause to charge time to.
    NoCause(usize),
    /// No such account of the host.
    NoAccount(usize),
    /// No register has this encoding.
    NoRegister(u16),
    /// The event is not tallied.
    NotTallied(u16),
    /// A rate that no event can have.
    RateTooHigh {
        /// The event.
        event: u16,
        /// Its rate, Q32.32.
        rate: u64,
    },
    /// An event that software or an overflow makes happen.
    NoRate(u16),
    /// A rate of `CPU_CYCLES` other than one per cycle.
    CycleRate(u64),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpus(cpus) => write!(f, "{cpus} CPUs: 1 to 65536"),
            Self::Events(events) => write!(f, "{events} events: at most {EVENTS}"),
            Self::Features { cpu, error } => write!(f, "CPU {cpu}: {error}"),
            Self::NoCpu { cpu, cpus } => write!(f, "no CPU {cpu}: there are {cpus}, from 0"),
            Self::NoContext { context, contexts } => {
                write!(f, "no context {context}: there are {contexts}, from 0")
            }
            Self::NoProfile { profile, profiles } => {
                write!(f, "no profile {profile}: there are {profiles}, from 0")
            }
            Self::Profiles => write!(f, "more than {PROFILES} profiles"),
            Self::NoLevel { el, guest: true } => write!(f, "EL{el}: a guest has EL0 and EL1"),
            Self::NoLevel { el, guest: false } => write!(f, "EL{el}: a host has EL0 and EL2"),
            Self::Runs { context, cpu } => {
                write!(f, "context {context} still runs on CPU {cpu}: something else has to run there first")
            }
            Self::NothingRuns(cpu) => {
                write!(f, "nothing runs on CPU {cpu}: a context has to be set running first")
            }
            Self::NoCause(cause) => write!(f, "no cause {cause}: 0 to {}", CAUSES - 1),
            Self::NoAccount(account) => write!(f, "no account {account} of the host: 1 to {}", ACCOUNTS - 1),
            Self::NoRegister(encoding) => write!(f, "no register {encoding:#x}"),
            Self::NotTallied(event) => {
                write!(f, "event {event:#x} is not tallied: name it when the machine is made")
            }
            Self::RateTooHigh { event, rate } => {
                write!(f, "event {event:#x}: rate {rate} is 65536 per cycle or above")
            }
            Self::NoRate(event) => write!(f, "event {event:#x} happens by itself, it has no rate"),
            Self::CycleRate(rate) => {
                write!(f, "event 0x11 (CPU_CYCLES) happens once per cycle, not {rate}/2^32 times")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Features { error, .. } => Some(error),
            _ => None,
        }
    }
}
