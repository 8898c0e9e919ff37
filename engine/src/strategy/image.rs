//! Makes the images that a component's memories begin from.
//!
//! wasmtime writes an image into an anonymous file and seals it. Linux refuses the seal
//! for as long as anything else in the kernel holds one of the file's pages (`EBUSY` of
//! `F_ADD_SEALS`), which happens by itself on a busy machine and says nothing about the
//! component. wasmtime would make the images when the component first runs, where the
//! refusal would pass for a fault of the strategy, so they are made beforehand and with
//! patience.

use std::io::{self, ErrorKind};
use std::time::Duration;

use wasmtime::Error;
use wasmtime::component::Component;

use super::contract::Rejected;

/// How often the images are made anew. The kernel itself waits about 150 ms each time.
const TRIES_MAX: u32 = 30;
/// Pause before they are made anew.
const PAUSE: Duration = Duration::from_millis(50);

/// Makes the images of a component, unless it has them.
///
/// # Errors
/// The machine did not let them be made. The component may be a good one.
pub(super) fn prepare(component: &Component) -> Result<(), Rejected> {
    patiently(
        || component.initialize_copy_on_write_image(),
        || std::thread::sleep(PAUSE),
    )
    .map_err(|e| Rejected::Machine(e.root_cause().to_string()))
}

fn patiently(
    mut make: impl FnMut() -> Result<(), Error>,
    mut pause: impl FnMut(),
) -> Result<(), Error> {
    for _ in 1..TRIES_MAX {
        match make() {
            Err(error) if is_busy(&error) => pause(),
            made => return made,
        }
    }
    make()
}

fn is_busy(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|e| e.kind() == ErrorKind::ResourceBusy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(kind: ErrorKind) -> Error {
        Error::from(io::Error::from(kind)).context("the seal of an image")
    }

    /// Makes images that are refused `times` times, and returns how often it was tried.
    fn tried(kind: ErrorKind, times: u32) -> (Result<(), Error>, u32) {
        let (mut tries, mut pauses) = (0, 0);
        let made = patiently(
            || {
                tries += 1;
                if tries > times {
                    Ok(())
                } else {
                    Err(refusal(kind))
                }
            },
            || pauses += 1,
        );
        assert_eq!(pauses, tries - 1);
        (made, tries)
    }

    #[test]
    fn a_kernel_that_is_busy_is_asked_again() {
        for times in [0, 1, TRIES_MAX - 1] {
            let (made, tries) = tried(ErrorKind::ResourceBusy, times);
            assert!(made.is_ok());
            assert_eq!(tries, times + 1);
        }
        let (made, tries) = tried(ErrorKind::ResourceBusy, u32::MAX);
        assert!(made.is_err());
        assert_eq!(tries, TRIES_MAX);
    }

    #[test]
    fn another_refusal_is_the_answer() {
        let (made, tries) = tried(ErrorKind::OutOfMemory, 5);
        assert!(made.is_err());
        assert_eq!(tries, 1);
    }
}
