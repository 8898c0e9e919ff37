//! The text of a first rollout file, with comments for the people who go on with it. Pure.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::model::aws::{AwsSpec, Found};
use crate::model::target::{ADMIN_DEFAULT, LISTEN_DEFAULT};

const HEAD: &str = "\
# What `engine run` rolls out, and where. `engine check` looks at this file, and
# `engine schema rollout.toml` describes every key of it.
";

/// What the file says of the strategy where none is known.
const OPEN: &str = "\
# The strategy: a file, or its name in plugins.toml. None was found on this machine, so this
# is left open: `engine run PLUGIN` names one, and so does `plugin` here. `make plugins` in
# the sources of engine builds canary.wasm and blue-green.wasm, `engine plugin pull
# oci://REGISTRY/REPOSITORY:TAG --output FILE` fetches one from a registry, and
# `engine plugin new` begins one of your own.
[strategy]
# plugin = \"canary.wasm\"
";

fn strategy(plugin: Option<&str>, bake: &str) -> String {
    let named = match plugin {
        Some(plugin) => {
            let about = "# The strategy: a file, or its name in plugins.toml.";
            format!("{about}\n[strategy]\nplugin = {}\n", quoted(plugin))
        }
        None => OPEN.to_owned(),
    };
    format!(
        "\
{named}
# `engine plugin inspect` with the strategy lists its parameters.
[strategy.parameters]
# Shares of the requests in percent, one step after another, and the least time at each.
# steps = [5, 25, 50, 100]
# bake = \"{bake}\"

# What the engine sees to, whatever the strategy does.
[guardrails]
# A rollout that takes longer is taken back.
# deadline = \"24h\"
"
    )
}

/// A text as TOML.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// What a comment may say of a foreign text: one line of it.
fn said(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

/// The file of a target on AWS, with what was found of it.
#[must_use]
pub fn on_aws(spec: &AwsSpec, found: &Found, plugin: Option<&str>, image: Option<&str>) -> String {
    let mut text = HEAD.to_owned();
    text += "\n[target]\nkind = \"aws\"\n\n[target.aws]\n";
    let find = &spec.find;
    for (key, value, about) in [
        (
            "stack",
            &find.stack,
            "The CloudFormation stack of the load balancer and the services.",
        ),
        (
            "listener",
            &find.listener,
            "The listener whose default action shares out the requests.",
        ),
        (
            "rule",
            &find.rule,
            "The listener rule that shares out the requests.",
        ),
        ("cluster", &find.cluster, "The ECS cluster of the services."),
        ("region", &spec.access.region, "Where that is."),
        (
            "profile",
            &spec.access.profile,
            "The profile of the shared AWS configuration.",
        ),
        ("role", &spec.access.role, "The role that is assumed."),
        (
            "container",
            &spec.container,
            "The container whose image is the version.",
        ),
    ] {
        if let Some(value) = value {
            let _ = writeln!(text, "# {about}\n{key} = {}", quoted(value));
        }
    }
    if !find.test_listeners.is_empty() {
        let all: Vec<String> = find.test_listeners.iter().map(|arn| quoted(arn)).collect();
        let _ = writeln!(
            text,
            "# Listeners that only tests use.\ntest-listeners = [{}]",
            all.join(", ")
        );
    }
    if find.only {
        text += "# No other route to the same two groups moves.\nonly = true\n";
    }
    let _ = writeln!(text, "#\n# Found there: {}", said(&found.address));
    for arm in &found.arms {
        let service = match &arm.service {
            Some(service) => format!("service {}/{}", service.cluster, service.name),
            None => "no ECS service".to_owned(),
        };
        let group = arm
            .target_group
            .split('/')
            .nth(1)
            .unwrap_or(&arm.target_group);
        let _ = writeln!(
            text,
            "#   {}: target group {}, {}",
            said(&arm.name),
            said(group),
            said(&service)
        );
    }
    for also in &found.also {
        let _ = writeln!(text, "#   {} moves with it", said(&also.place));
    }
    for arm in &find.arms {
        let _ = writeln!(text, "\n[target.aws.arms.{}]", arm.name);
        for (key, value) in [
            ("target-group", &arm.target_group),
            ("service", &arm.service),
        ] {
            if let Some(value) = value {
                let _ = writeln!(text, "{key} = {}", quoted(value));
            }
        }
    }
    text += "\n";
    text += &strategy(plugin, "5m");
    text += "# CloudWatch alarms that take the new version back when they go off.\n# alarms = [\"NAME\"]\n\n";
    text += "# The new version, where `engine run` does not name it with --image.\n";
    match image {
        Some(image) => {
            let _ = writeln!(text, "[candidate]\nimage = {}", quoted(image));
        }
        None => text += "# [candidate]\n# image = \"REPOSITORY:TAG\"\n",
    }
    text
}

/// The file of a local balancer with that admin address, and a demo behind it.
#[must_use]
pub fn local(admin: SocketAddr, plugin: Option<&str>) -> String {
    let listen = match admin == LISTEN_DEFAULT {
        true => ADMIN_DEFAULT,
        false => LISTEN_DEFAULT,
    };
    format!(
        "{HEAD}
[target]
kind = \"local\"

# A load balancer on this machine: users come in at `listen`, and the engine gives orders at
# `admin`.
[target.local]
listen = \"{listen}\"
admin = \"{admin}\"
# Requests per second that the engine sends by itself. Remove it once there are users.
load-rps = 100

# The version that serves today. `demo` is a small server within the engine, to try this out;
# instead of it,
#   command = [\"./server\", \"--port\", \"{{port}}\"]    starts a program of yours,
#   urls = [\"http://127.0.0.1:9001\"]              is a server that runs already.
[target.local.arms.stable]
version = \"v1\"
demo = {{}}

# The new version.
[target.local.arms.canary]
version = \"v2\"
demo = {{}}

# How the engine sees that an arm is healthy.
[target.local.health]
# path = \"/healthz\"

{}",
        strategy(plugin, "10s")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::aws::{Access, Find, FindArm, FoundArm, ServiceId, looked_for};
    use crate::model::target::TargetSpec;
    use crate::spec::Spec;

    #[test]
    fn what_is_written_has_no_problems_and_says_the_same() {
        let arn = "arn:aws:elasticloadbalancing:eu-west-1:1:listener/app/a/1/2";
        let find = Find {
            listener: Some(arn.to_owned()),
            cluster: Some("we \"quote\"".to_owned()),
            arms: vec![FindArm {
                name: "canary".to_owned(),
                target_group: Some("app-canary-tg".to_owned()),
                service: None,
            }],
            test_listeners: vec![arn.to_owned()],
            only: true,
            ..Find::default()
        };
        let access = Access {
            region: Some("eu-west-1".to_owned()),
            ..Access::default()
        };
        let spec = looked_for(access, find);
        let found = Found {
            route: arn.to_owned(),
            load_balancer: String::new(),
            address: "http://a\nb = 1".to_owned(),
            zones: vec![],
            arms: vec![FoundArm {
                name: "canary".to_owned(),
                target_group: "arn:x:targetgroup/app-canary-tg/1".to_owned(),
                service: Some(ServiceId {
                    cluster: "c".to_owned(),
                    name: "s".to_owned(),
                }),
            }],
            test_addresses: vec![],
            test_listeners: vec![],
            place: String::new(),
            also: vec![],
            unmoved: vec![],
        };
        let text = on_aws(&spec, &found, Some("canary"), Some("app:v2"));
        let read = Spec::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(read.target, TargetSpec::Aws(Box::new(spec.clone())));
        assert_eq!(read.strategy.plugin.as_deref(), Some("canary"));
        assert_eq!(read.candidate.map(|c| c.version).as_deref(), Some("app:v2"));
        let bare = on_aws(&spec, &found, Some("canary"), None);
        assert_eq!(Spec::parse(&bare).expect("no problems").candidate, None);
        for admin in [ADMIN_DEFAULT, LISTEN_DEFAULT] {
            let text = local(admin, Some("plugins/canary.wasm"));
            let read = Spec::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
            let TargetSpec::Embedded { local, .. } = read.target else {
                panic!("{:?}", read.target);
            };
            assert_eq!(local.admin, admin);
            assert_ne!(local.listen, admin);
        }
        // One without a strategy is right too, and leaves it open.
        let open = local(ADMIN_DEFAULT, None);
        let read = Spec::parse(&open).unwrap_or_else(|e| panic!("{e}\n{open}"));
        assert_eq!(read.strategy.plugin, None);
        assert!(open.contains("`make plugins`"), "{open}");
        insta::assert_snapshot!("a_rollout_file_for_aws", text);
        insta::assert_snapshot!(
            "a_rollout_file_for_here",
            local(ADMIN_DEFAULT, Some("plugins/canary.wasm"))
        );
    }
}
