//! What a person can do about an error or a note, in the verbs and flags of the
//! command line.

use crate::ops::news::Note;
use crate::ops::template::Template;
use crate::ops::{Advice, Ask, Error, Input};

/// How a paragraph with advice begins.
const HINT: &str = "\n\nhint: ";

/// Longest error that has its advice in the same line, characters.
const LINE: usize = 76;

/// An error as the terminal shows it: what is wrong, and what to do.
#[must_use]
pub fn text(error: &Error) -> String {
    let message = message(error);
    let Some(advice) = all(&error.advice) else {
        return message;
    };
    let short = message.chars().count() + advice.chars().count() < LINE;
    let between = match message.contains('\n') {
        // What comes from beneath the operations may have a hint already.
        true if message.contains("\nhint: ") => "; ",
        false if short => "; ",
        _ => HINT,
    };
    format!("{message}{between}{advice}")
}

/// What is wrong and what to do, each for itself.
#[must_use]
pub fn parts(error: &Error) -> (String, Option<String>) {
    let message = message(error);
    let advice = all(&error.advice);
    match message.rsplit_once("\nhint: ") {
        Some((wrong, hint)) => {
            let advice = advice.map_or_else(|| hint.to_owned(), |more| format!("{hint}; {more}"));
            (wrong.trim_end().to_owned(), Some(advice))
        }
        None => (message, advice),
    }
}

/// A note as the terminal shows it.
#[must_use]
pub fn note(note: &Note) -> String {
    match &note.advice {
        Some(advice) => format!("{}; {}", note.text, sentence(advice)),
        None => note.text.clone(),
    }
}

fn message(error: &Error) -> String {
    match &error.argument {
        Some(argument) => format!("{} {}", flag(argument), error.message),
        None => error.message.clone(),
    }
}

/// Several things that a person can do, in one sentence.
#[must_use]
pub fn of(advice: &[Advice]) -> String {
    all(advice).unwrap_or_default()
}

fn all(advice: &[Advice]) -> Option<String> {
    let sentences: Vec<String> = advice.iter().map(sentence).collect();
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

fn sentence(advice: &Advice) -> String {
    match advice {
        Advice::Ask(ask, does) => format!("{} {does}", command(ask)),
        Advice::Give(input, does) => format!("{} {does}", flag(input)),
        Advice::Name(input) => format!("name it with {}", flag(input)),
        Advice::PinPlugins => {
            "write one and run `engine plugin lock`; without it there is nothing that --locked could keep to"
                .to_owned()
        }
        Advice::Words(words) => words.clone(),
    }
}

fn command(ask: &Ask) -> String {
    match ask {
        Ask::Run => "`engine run`".to_owned(),
        Ask::Check => "`engine check`".to_owned(),
        Ask::Init => "`engine init`".to_owned(),
        Ask::RunTaskDefinition => "`engine run --task-definition FAMILY:REVISION`".to_owned(),
        Ask::List => "`engine list`".to_owned(),
        Ask::Status => "`engine status`".to_owned(),
        Ask::StatusOf(id) => format!("`engine status {id}`"),
        Ask::Watch(id) => format!("`engine status {id} -w`"),
        Ask::Resume(id) => format!("`engine resume {id}`"),
        Ask::Abort(id) => format!("`engine abort {id}`"),
        Ask::PromoteFully(id) => format!("`engine promote {id} --full`"),
        Ask::Rollback => "`engine rollback`".to_owned(),
        Ask::RollbackTo(arm) => format!("`engine rollback --to {arm}`"),
        Ask::Undo(id) => format!("`engine undo {id}`"),
        Ask::TakeBack => "`engine rollback` or `engine abort`".to_owned(),
        Ask::Switch(arm) => format!("`engine switch {arm}`"),
        Ask::SetWeights(weights) => format!("`engine set-weights {weights}`"),
        Ask::MoveTraffic => "`engine set-weights` or `engine switch`".to_owned(),
        Ask::DeleteStack(name) => format!("`engine delete --stack {name}`"),
        Ask::ContinueStackRollback(name) => {
            format!("`aws cloudformation continue-update-rollback --stack-name {name}`")
        }
        Ask::RunImage { kind, stack, image } => {
            let plugin = match kind {
                Template::Canary => "plugins/canary.wasm",
                Template::BlueGreen => "plugins/blue-green.wasm",
            };
            format!("`engine run {plugin} --stack {stack} --image {image}`")
        }
        Ask::SwitchOn { stack, arm } => format!("`engine switch {arm} --stack {stack}`"),
        Ask::SetWeightsOn { stack, weights } => {
            let weights = weights.as_ref().map(|weights| weights.join(" "));
            let weights = weights.as_deref().unwrap_or("STABLE CANARY");
            format!("`engine set-weights {weights} --stack {stack}`")
        }
        Ask::DeployParameter {
            kind,
            stack,
            parameter,
        } => {
            let kind = match kind {
                Template::Canary => "canary",
                Template::BlueGreen => "blue-green",
            };
            format!("`engine deploy {kind} --stack {stack} -p {parameter}`")
        }
        Ask::NewPlugin => "`engine plugin new`".to_owned(),
        Ask::PullPlugin => {
            "`engine plugin pull oci://REGISTRY/REPOSITORY:TAG --output FILE`".to_owned()
        }
        Ask::LockPlugins => "`engine plugin lock`".to_owned(),
        Ask::UpdatePlugin(name) => format!("`engine plugin update {name}`"),
    }
}

/// The flag by which a part of a request is given.
fn flag(input: &Input) -> String {
    let flag = match input {
        Input::StackParameterOf(name) => return format!("--parameter {name}=VALUE"),
        Input::Offline(source) => {
            return format!("{source} is in a registry, and --offline (or --frozen)");
        }
        Input::ServiceOf(arm) => return format!("--service {arm}=CLUSTER/SERVICE"),
        Input::StackNamed(name) => return format!("--stack {name}"),
        Input::AcceptWeights => "--accept-weights",
        Input::AcceptChange | Input::AcceptTooFew => "--accept",
        Input::AcceptReplacement => "--accept-replacement",
        Input::StackParameter => "--parameter",
        Input::Stack => "--stack",
        Input::LoadBalancer => "--stack, --listener or --rule",
        Input::Target => "--stack, --listener, --rule or --local",
        Input::TargetOrFile => {
            "--stack NAME, --listener ARN or --rule ARN on AWS, --local ADDRESS on this machine, or -f FILE with a rollout file; for example --stack shop --region eu-west-1"
        }
        Input::Listener => "--listener",
        Input::Rule => "--rule",
        Input::TestListener => "--test-listener",
        Input::Only => "--only",
        Input::Arms => "--arm stable=TARGET-GROUP --arm canary=TARGET-GROUP",
        Input::Arm => "--arm",
        Input::Service => "--service",
        Input::PartOfArm => "--arm or --service",
        Input::Stable => "--stable NAME",
        Input::Image => "--image",
        Input::Release => "--image and --task-definition",
        Input::DemoFault => "--demo-fault",
        Input::DemoRate => "--rate",
        Input::DemoNames => "--names",
        Input::Admin => "--admin",
        Input::RolloutFile => "--file",
        Input::Replace => "--force",
        Input::StateFolder => "--state-dir",
        Input::PluginsFile => "--plugins",
        Input::Locked => "--locked",
        Input::Parameter => "--set",
        Input::Query => "--query",
        Input::Folder => "--folder",
        Input::OutputFile => "--output",
        Input::DecisionsFile => "--decisions",
        Input::Annotation => "--annotate",
        Input::Scenario => "--pick",
        Input::AllFinished => "--all",
    };
    flag.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_follows_what_is_wrong() {
        let short = Error::usage("there is no rollout \"x\"").ask(Ask::List, "shows them");
        assert_eq!(
            text(&short),
            "there is no rollout \"x\"; `engine list` shows them"
        );
        let long = Error::busy("the target is busy with rollout canary-x7k2m9qa")
            .ask(Ask::StatusOf("canary-x7k2m9qa".to_owned()), "shows it")
            .hint("wait");
        assert_eq!(
            text(&long),
            "the target is busy with rollout canary-x7k2m9qa\n\nhint: `engine status canary-x7k2m9qa` shows it; wait"
        );
        let wrong = Error::argument(Input::Rule, "foo is not an ARN");
        assert_eq!(text(&wrong), "--rule foo is not an ARN");
        assert_eq!(parts(&wrong), (text(&wrong), None));
    }

    #[test]
    fn a_hint_from_beneath_and_advice_are_one_hint() {
        let error = Error::usage("it is wrong\n\nhint: repair it").give(Input::Stack, "names one");
        let hint = "repair it; --stack names one";
        assert_eq!(text(&error), format!("it is wrong\n\nhint: {hint}"));
        let (wrong, advice) = parts(&error);
        assert_eq!((&*wrong, advice.as_deref()), ("it is wrong", Some(hint)));
    }
}
