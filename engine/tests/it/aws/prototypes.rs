//! What users of the two prototypes are used to, verb by verb in their order: the same
//! environment, the same default names, from our templates and from theirs.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::support::aws::emulator::{self, aws};
use crate::support::binary::{engine, stderr, stdout};
use crate::support::{folder, root};

/// One prototype, as its users call it.
struct Prototype {
    folder: tempfile::TempDir,
    region: &'static str,
    kind: &'static str,
    stack: &'static str,
    /// Their own template instead of ours.
    template: Option<PathBuf>,
}

impl Prototype {
    fn call(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
        let folder: &Path = self.folder.path();
        let mut command = engine(folder, arguments);
        emulator::environment(&mut command, &emulator::endpoint(), self.region);
        if let Some(template) = &self.template {
            command.env("TEMPLATE_FILE", template);
        }
        command.envs(environment.iter().copied());
        command.output().expect("the binary runs")
    }

    fn deploy(&self, environment: &[(&str, &str)]) -> Output {
        let output = self.call(environment, &["deploy", self.kind]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        output
    }

    /// A verb on the stack that succeeds; what it prints.
    fn does(&self, verb: &[&str]) -> String {
        let output = self.call(&[], &[verb, &["--stack", self.stack]].concat());
        assert_eq!(
            output.status.code(),
            Some(0),
            "{verb:?}: {}",
            stderr(&output)
        );
        stdout(&output)
    }

    /// A verb on the stack that is refused as wrong; what it says.
    fn refuses(&self, verb: &[&str]) -> String {
        let output = self.call(&[], &[verb, &["--stack", self.stack]].concat());
        assert_eq!(
            output.status.code(),
            Some(2),
            "{verb:?}: {}",
            stdout(&output)
        );
        stderr(&output)
    }

    /// The weights that the listener really has, as the AWS CLI shows them.
    fn weights(&self) -> [i64; 2] {
        let status: Value = serde_json::from_str(&self.does(&["status", "--json"])).expect("JSON");
        let listener = status["target"]["identity"].as_str().expect("an ARN");
        let arguments = ["elbv2", "describe-listeners", "--listener-arns", listener];
        let shown = aws(self.region, &arguments);
        let action = &shown["Listeners"][0]["DefaultActions"][0];
        let groups = action["ForwardConfig"]["TargetGroups"].as_array();
        let groups = groups.expect("groups");
        assert_eq!(groups.len(), 2, "both named: {shown}");
        [0, 1].map(|n| groups[n]["Weight"].as_i64().expect("a weight"))
    }

    fn delete(&self) {
        let asked = self.refuses(&["delete"]);
        assert!(asked.contains("--yes"), "{asked}");
        self.does(&["delete", "--yes"]);
        let gone = self.refuses(&["status"]);
        assert!(gone.contains("there is no stack"), "{gone}");
    }
}

fn canary(region: &'static str, template: Option<PathBuf>) {
    let it = Prototype {
        folder: folder(),
        region,
        kind: "canary",
        stack: "ecs-canary-demo-stack",
        template,
    };
    let images = [
        ("IMAGE_URI_STABLE", "app:v1"),
        ("IMAGE_URI_CANARY", "app:v1"),
        ("DESIRED_COUNT_STABLE", "2"),
    ];
    it.deploy(&images);
    assert_eq!(it.weights(), [95, 5], "as it begins");
    let seen = it.does(&["status"]);
    assert!(seen.contains("http://localhost"), "{seen}");
    assert!(seen.contains("95 %") && seen.contains("  5 %"), "{seen}");
    for (stable, canary) in [(75, 25), (50, 50), (0, 100)] {
        it.does(&["set-weights", &stable.to_string(), &canary.to_string()]);
        assert_eq!(it.weights(), [stable, canary]);
    }
    let wrong = it.refuses(&["set-weights", "75", "30"]);
    assert!(wrong.contains("sum to 105"), "{wrong}");
    it.does(&["rollback"]);
    assert_eq!(it.weights(), [100, 0]);

    // Again, as users of the prototype would: with the variables still there.
    let again = it.deploy(&images);
    let said = stderr(&again);
    assert!(
        !said.contains("of the environment"),
        "nothing is new: {said}"
    );
    it.does(&["set-weights", "stable=993", "canary=7"]);
    let seen = it.does(&["status"]);
    assert!(seen.contains("99.3 %") && seen.contains("0.7 %"), "{seen}");
    let news = [
        ("IMAGE_URI_STABLE", "app:v1"),
        ("IMAGE_URI_CANARY", "app:v2"),
        ("STABLE_WEIGHT", "50"),
        ("CANARY_WEIGHT", "50"),
    ];
    let said = stderr(&it.deploy(&news));
    for part in [
        "IMAGE_URI_CANARY=app:v2 of the environment is for a new one; `engine run plugins/canary.wasm --stack ecs-canary-demo-stack --image app:v2` does that",
        "CANARY_WEIGHT=50 of the environment is for a new one; `engine set-weights 50 50 --stack ecs-canary-demo-stack` does that",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(
        !said.contains("IMAGE_URI_STABLE"),
        "it is so already: {said}"
    );
    assert_eq!(it.weights(), [993, 7], "live weights stay");
    it.delete();
}

fn blue_green(region: &'static str, template: Option<PathBuf>) {
    let it = Prototype {
        folder: folder(),
        region,
        kind: "blue-green",
        stack: "ecs-blue-green-demo-stack",
        template,
    };
    it.deploy(&[
        ("IMAGE_URI_BLUE", "app:v1"),
        ("IMAGE_URI_GREEN", "app:v2"),
        ("ACTIVE_COLOR", "blue"),
    ]);
    assert_eq!(it.weights(), [100, 0]);
    let wrong = it.refuses(&["switch", "purple"]);
    assert!(wrong.contains("there are blue and green"), "{wrong}");
    it.does(&["switch", "green"]);
    assert_eq!(it.weights(), [0, 100]);
    let seen = it.does(&["status"]);
    assert!(seen.contains("app:v2"), "{seen}");
    it.does(&["switch", "blue"]);
    assert_eq!(it.weights(), [100, 0], "the quick way back");
    let said = stderr(&it.deploy(&[("ACTIVE_COLOR", "green")]));
    let command = "ACTIVE_COLOR=green of the environment is for a new one; `engine switch green --stack ecs-blue-green-demo-stack` does that";
    assert!(said.contains(command), "{said}");
    assert_eq!(it.weights(), [100, 0], "a deployment moves no traffic");
    it.delete();
}

fn theirs(name: &str) -> Option<PathBuf> {
    Some(root().join("engine/tests/fixtures/prototypes").join(name))
}

#[test]
fn the_canary_prototype_verb_by_verb_with_our_template() {
    canary("eu-west-2", None);
}

#[test]
fn the_canary_prototype_verb_by_verb_with_its_own() {
    canary("eu-west-3", theirs("canary.yml"));
}

#[test]
fn the_blue_green_prototype_verb_by_verb_with_our_template() {
    blue_green("eu-west-2", None);
}

#[test]
fn the_blue_green_prototype_verb_by_verb_with_its_own() {
    blue_green("eu-west-3", theirs("blue-green.yml"));
}

/// A stack that the environment names is for `deploy` and `delete`; other verbs say so.
#[test]
fn a_stack_of_the_environment_is_not_passed_over_in_silence() {
    let folder = folder();
    let mut command = engine(folder.path(), &["set-weights", "75", "25"]);
    emulator::environment(&mut command, &emulator::endpoint(), "eu-west-2");
    let output = command.env("STACK_NAME", "shop").output();
    let output = output.expect("the binary runs");
    assert_ne!(output.status.code(), Some(0));
    let said = stderr(&output);
    assert!(said.contains("--stack shop names it here"), "{said}");
}
