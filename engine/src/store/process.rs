//! Processes of this machine: which one owns a lease, and whether it still runs.
//! Valid only for a store that belongs to one machine.

use super::Owner;

/// This process, as the owner of leases.
#[must_use]
pub fn this() -> Owner {
    let pid = std::process::id();
    Owner {
        host: host(),
        pid,
        started: started(pid).unwrap_or_default(),
    }
}

/// Whether that process has certainly ended: it ran before a reboot, or its id is
/// free or reused. In another container a process id means something else, so an
/// owner there counts as alive.
#[must_use]
pub fn is_dead(owner: &Owner) -> bool {
    let (their_boot, their_space) = owner.host.split_once('/').unwrap_or_default();
    let this = host();
    let (boot, space) = this.split_once('/').unwrap_or_default();
    if boot.is_empty() || their_boot.is_empty() {
        return false;
    }
    boot != their_boot
        || space == their_space && started(owner.pid).as_ref() != Some(&owner.started)
}

/// One boot of one machine and one namespace of process ids. If it cannot be read,
/// no owner counts as dead, and a lease must expire.
fn host() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{}/{}", boot.trim(), space.display())
}

/// When a process of this machine started, in clock ticks of the kernel.
fn started(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, so fields count from its end.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // A zombie has ended and owns nothing any more.
    if fields.first() == Some(&"Z") {
        return None;
    }
    fields.get(19).map(|start| (*start).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_others_are_told_apart() {
        let this = this();
        assert!(!is_dead(&this));
        // An earlier process with the same id.
        let earlier = Owner {
            started: "1".to_owned(),
            ..this.clone()
        };
        assert!(is_dead(&earlier));
        let (_, space) = this.host.split_once('/').expect("boot and space");
        let rebooted = Owner {
            host: format!("another-boot/{space}"),
            ..this.clone()
        };
        assert!(is_dead(&rebooted));
        let (boot, _) = this.host.split_once('/').expect("boot and space");
        let contained = Owner {
            host: format!("{boot}/pid:[1]"),
            ..earlier
        };
        assert!(!is_dead(&contained), "its process ids are not ours");
        let unknown = Owner {
            host: String::new(),
            ..this
        };
        assert!(!is_dead(&unknown));
    }
}
