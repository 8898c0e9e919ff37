//! What a person can do next, without the words of a front end: a command line turns
//! it into verbs and flags, a page into links and fields.

use std::fmt;

use super::template::Template;

/// Something that a person can do about an error or a note.
///
/// The texts in it are the rest of a sentence in the singular, whose subject the front
/// end names: "takes the traffic back", after its name for [`Ask::Abort`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// Ask for something, which does that.
    Ask(Ask, String),
    /// Ask for the same again and give something with it, which does that.
    Give(Input, String),
    /// Name what the error says is not named, with that.
    Name(Input),
    /// Name plugins in a plugins file and pin them, as whoever wants only pinned plugins
    /// must.
    PinPlugins,
    /// Something outside of the engine, in a whole sentence without a full stop.
    Words(String),
}

impl Advice {
    /// Ask for something, which `does` that.
    pub fn ask(ask: Ask, does: impl Into<String>) -> Self {
        Self::Ask(ask, does.into())
    }

    /// Give something with the same request, which `does` that.
    pub fn give(input: Input, does: impl Into<String>) -> Self {
        Self::Give(input, does.into())
    }

    /// Do something outside of the engine.
    pub fn words(words: impl Into<String>) -> Self {
        Self::Words(words.into())
    }
}

/// What a person can ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// To begin a rollout.
    Run,
    /// To look whether a rollout could begin.
    Check,
    /// To write a rollout file.
    Init,
    /// To begin a rollout of a task definition.
    RunTaskDefinition,
    /// Which rollouts there are.
    List,
    /// How the target stands.
    Status,
    /// How that rollout stands.
    StatusOf(String),
    /// To follow that rollout.
    Watch(String),
    /// To let that rollout go on.
    Resume(String),
    /// To take the traffic of that rollout back.
    Abort(String),
    /// To give all traffic to the new version of that rollout.
    PromoteFully(String),
    /// To take all traffic back to the stable arm.
    Rollback,
    /// To take all traffic back to that arm.
    RollbackTo(String),
    /// To bring back the release from before that rollout.
    Undo(String),
    /// Either of what takes traffic back.
    TakeBack,
    /// To give all traffic to that arm.
    Switch(String),
    /// To set these weights, `ARM=WEIGHT` each.
    SetWeights(String),
    /// Either of what moves traffic by hand.
    MoveTraffic,
    /// To delete that stack.
    DeleteStack(String),
    /// To continue the rollback of that stack, in CloudFormation.
    ContinueStackRollback(String),
    /// To roll out an image on a stack of the engine's template.
    RunImage {
        /// The template.
        kind: Template,
        /// The stack.
        stack: String,
        /// The image.
        image: String,
    },
    /// To give all traffic of a stack to an arm.
    SwitchOn {
        /// The stack.
        stack: String,
        /// The arm.
        arm: String,
    },
    /// To set the weights of a stack: these of the stable arm and of the canary, if they
    /// are known.
    SetWeightsOn {
        /// The stack.
        stack: String,
        /// Both weights.
        weights: Option<[String; 2]>,
    },
    /// To update a stack of the engine's template with that parameter.
    DeployParameter {
        /// The template.
        kind: Template,
        /// The stack.
        stack: String,
        /// `NAME=VALUE`.
        parameter: String,
    },
    /// To begin a strategy of one's own.
    NewPlugin,
    /// To fetch a plugin from a registry into a file.
    PullPlugin,
    /// To pin plugins.
    LockPlugins,
    /// To pin what that plugin is now.
    UpdatePlugin(String),
}

/// A part of a request, which a person can give, or has given wrongly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// That a stack may write other weights than the live ones.
    AcceptWeights,
    /// That a stack may write another action of a listener or rule, and take tasks away.
    AcceptChange,
    /// That a stack may replace what serves.
    AcceptReplacement,
    /// That an arm may get traffic for which it has too few tasks.
    AcceptTooFew,
    /// A parameter of a template.
    StackParameter,
    /// The parameter of a template with that name.
    StackParameterOf(String),
    /// A stack.
    Stack,
    /// The stack of that name.
    StackNamed(String),
    /// The service of that arm.
    ServiceOf(String),
    /// A load balancer on AWS, in any way.
    LoadBalancer,
    /// A load balancer, on AWS or here.
    Target,
    /// The same, or a file that names it.
    TargetOrFile,
    /// A listener.
    Listener,
    /// A rule of a listener.
    Rule,
    /// A listener for tests.
    TestListener,
    /// That only the route that is named moves.
    Only,
    /// The target groups of both arms.
    Arms,
    /// The target group of an arm.
    Arm,
    /// The service of an arm.
    Service,
    /// What belongs to an arm, in any way.
    PartOfArm,
    /// The arm that is stable.
    Stable,
    /// The image of the new version.
    Image,
    /// What the new version runs on AWS, in any way.
    Release,
    /// The fault of the demo's new version.
    DemoFault,
    /// Requests per second of the demo.
    DemoRate,
    /// The names of the demo's arms.
    DemoNames,
    /// The admin address of a local balancer.
    Admin,
    /// The rollout file.
    RolloutFile,
    /// That a file that is there may be replaced.
    Replace,
    /// The state folder.
    StateFolder,
    /// The plugins file.
    PluginsFile,
    /// That pins must be there and stay as they are.
    Locked,
    /// That nothing may be fetched, also not that source in a registry.
    Offline(String),
    /// A parameter of a strategy.
    Parameter,
    /// The answer to a query.
    Query,
    /// The folder of a new project.
    Folder,
    /// The file to write to.
    OutputFile,
    /// The file of accepted decisions.
    DecisionsFile,
    /// A label for a plugin in a registry.
    Annotation,
    /// The scenario.
    Scenario,
    /// All finished rollouts.
    AllFinished,
}

/// What it is in plain words, as the subject of a sentence.
impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AcceptWeights => "a permission to change live weights",
            Self::AcceptChange => "a permission to change what is live",
            Self::AcceptTooFew => "a permission to give traffic to an arm that is too small",
            Self::AcceptReplacement => "a permission to replace what serves",
            Self::StackParameter => "the parameter of the stack",
            Self::StackParameterOf(name) => return write!(f, "the parameter {name} of the stack"),
            Self::Stack => "the stack",
            Self::ServiceOf(arm) => return write!(f, "the service of {arm}"),
            Self::StackNamed(name) => return write!(f, "the stack {name}"),
            Self::LoadBalancer => "the load balancer",
            Self::Target | Self::TargetOrFile => "the target",
            Self::Listener => "the listener",
            Self::Rule => "the rule",
            Self::TestListener => "the test listener",
            Self::Only => "a limit to the route that is named",
            Self::Arms => "the target groups of both arms",
            Self::Arm => "the arm",
            Self::Service => "the service",
            Self::PartOfArm => "the parts of an arm",
            Self::Stable => "the stable arm",
            Self::Image => "the image",
            Self::Release => "the image and the task definition",
            Self::DemoFault => "the fault of the new version",
            Self::DemoRate => "the rate of requests",
            Self::DemoNames => "the names of the arms",
            Self::Admin => "the admin address",
            Self::RolloutFile => "the rollout file",
            Self::Replace => "a permission to replace a file",
            Self::StateFolder => "the state folder",
            Self::PluginsFile => "the plugins file",
            Self::Locked => "a locked run",
            Self::Offline(source) => {
                return write!(f, "{source} is in a registry, and an offline run");
            }
            Self::Parameter => "the parameter",
            Self::Query => "the answer to a query",
            Self::Folder => "the folder",
            Self::OutputFile => "the output file",
            Self::DecisionsFile => "the file of decisions",
            Self::Annotation => "the annotation",
            Self::Scenario => "the scenario",
            Self::AllFinished => "all finished rollouts",
        })
    }
}
