//! A rollout on AWS in a bottle: hand-made arms in the emulator, a proxy before
//! it, a virtual clock, a memory store.

use std::sync::Arc;

use aws_sdk_cloudwatch::types::{Dimension, MetricDatum};
use aws_sdk_ecs::types::{
    AwsVpcConfiguration, Compatibility, ContainerDefinition, DeploymentCircuitBreaker,
    DeploymentConfiguration, KeyValuePair, LaunchType, LoadBalancer, NetworkConfiguration,
    NetworkMode, PortMapping,
};
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, ForwardActionConfig, ProtocolEnum, RedirectActionConfig,
    RedirectActionStatusCodeEnum, TargetGroupStickinessConfig, TargetGroupTuple, TargetTypeEnum,
};
use aws_smithy_types::DateTime;
use engine::clock::{Clock, VirtualClock};
use engine::journal::{Entry, Header, Work};
use engine::model::aws::{Access, AwsSpec, Find, looked_for};
use engine::model::limits::Guardrails;
use engine::model::target::TargetSpec;
use engine::model::{Arm, Capacity, Observed, Promotion, Release, Role, Source, Weights};
use engine::ops::begin::Ready;
use engine::rollout::fleet::Fleet;
use engine::rollout::{Driver, Options, RolloutError, Standing, Strategy};
use engine::store::Journals as _;
use engine::store::memory::MemoryStore;
use engine::target::Target;
use engine::target::aws::AwsTarget;
use engine::target::aws::client::{Clients, Patience};
use serde_json::{Value, json};

use super::emulator::{self, unique};
use super::proxy::Proxy;
use crate::support::fixture;
use crate::support::lab::{self, ID, Resolver, START, owner};

pub const REGION: &str = "us-east-1";

/// Clients of the tests' own SDKs, straight to the emulator.
pub struct Direct {
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    pub ecs: aws_sdk_ecs::Client,
    pub cloudwatch: aws_sdk_cloudwatch::Client,
}

pub async fn direct() -> Direct {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = aws_config::defaults(aws_config::BehaviorVersion::latest())
        .endpoint_url(emulator::endpoint())
        .region(aws_config::Region::from_static(REGION))
        .http_client(http)
        .credentials_provider(aws_credential_types::Credentials::new(
            "t", "t", None, None, "t",
        ))
        .load()
        .await;
    Direct {
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
        ecs: aws_sdk_ecs::Client::new(&config),
        cloudwatch: aws_sdk_cloudwatch::Client::new(&config),
    }
}

/// Quick to give up, because the emulator is near.
pub fn impatient(endpoint: &str) -> Patience {
    Patience {
        connect: std::time::Duration::from_secs(2),
        attempt: std::time::Duration::from_millis(1_500),
        operation: std::time::Duration::from_secs(6),
        attempts: 3,
        backoff: std::time::Duration::from_millis(10),
        rate: 0,
        endpoint: Some(endpoint.to_owned()),
        network: engine::model::network::Network::default(),
        fake_credentials: true,
    }
}

/// What a hand-made target is made of.
#[derive(Clone)]
pub struct Made {
    pub name: String,
    pub balancer: String,
    pub listener: String,
    pub groups: [String; 2],
    pub cluster: String,
    pub arms: [String; 2],
}

/// How a hand-made target begins.
#[derive(Clone)]
pub struct Wish {
    pub arms: [&'static str; 2],
    pub weights: [i32; 2],
    pub tasks: [i32; 2],
    pub images: [&'static str; 2],
    pub sticky: bool,
    pub breaker: bool,
    pub port: i32,
    /// Other containers of each task, by name and image; the first one is behind the
    /// load balancer.
    pub beside: &'static [(&'static str, &'static str)],
    /// CPU and memory of the arms' tasks.
    pub sizes: [[&'static str; 2]; 2],
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            arms: ["stable", "canary"],
            weights: [100, 0],
            tasks: [2, 1],
            images: ["app:v1", "app:v1"],
            sticky: false,
            breaker: true,
            port: 8000,
            beside: &[],
            sizes: [["256", "512"]; 2],
        }
    }
}

impl Wish {
    /// The container that the load balancer sends to.
    fn front(&self) -> &'static str {
        self.beside.first().map_or("app", |(name, _)| name)
    }
}

pub fn forward(groups: &[(&str, i32)]) -> Action {
    let mut config = ForwardActionConfig::builder();
    for (arn, weight) in groups {
        let tuple = TargetGroupTuple::builder()
            .target_group_arn(*arn)
            .weight(*weight);
        config = config.target_groups(tuple.build());
    }
    Action::builder()
        .r#type(ActionTypeEnum::Forward)
        .forward_config(config.build())
        .build()
}

/// What a listener on port 80 does once there is one on 443.
pub fn redirect() -> Action {
    let redirect = RedirectActionConfig::builder()
        .protocol("HTTPS")
        .port("443")
        .status_code(RedirectActionStatusCodeEnum::Http301);
    Action::builder()
        .r#type(ActionTypeEnum::Redirect)
        .redirect_config(redirect.build())
        .build()
}

/// Makes a target by plain API calls, as people do by hand.
pub async fn make(wish: &Wish) -> Made {
    make_speaking(wish, (ProtocolEnum::Http, "HTTP1")).await
}

/// The same, with target groups that speak this protocol in this version.
pub async fn make_speaking(wish: &Wish, speaks: (ProtocolEnum, &str)) -> Made {
    let aws = direct().await;
    let name = unique("made");
    let network = Network::of_region().await;
    let balancer = balancer(&aws, &name, &network).await;
    let mut groups = vec![];
    for arm in wish.arms {
        groups.push(group(&aws, &format!("{name}-{arm}"), &network, wish.port, &speaks).await);
    }
    let groups: [String; 2] = groups.try_into().expect("two");
    let listener = listener(&aws, &balancer, shares(wish, &groups)).await;
    let create = aws.ecs.create_cluster().cluster_name(&name);
    create.send().await.expect("a cluster");
    for (arm, group) in groups.iter().enumerate() {
        task_definition(&aws, &name, wish, arm).await;
        service(&aws, &name, wish, arm, (&network, group)).await;
    }
    let made = Made {
        cluster: name.clone(),
        name,
        balancer,
        listener,
        groups,
        arms: wish.arms.map(ToOwned::to_owned),
    };
    become_steady(&aws, &made).await;
    made
}

/// The only network of the region, and two subnets of it.
struct Network {
    id: String,
    subnets: Vec<String>,
}

impl Network {
    async fn of_region() -> Self {
        let ask = || Self {
            id: emulator::network(REGION),
            subnets: emulator::subnets(REGION),
        };
        tokio::task::spawn_blocking(ask).await.expect("CLI")
    }
}

/// A load balancer; its ARN.
async fn balancer(aws: &Direct, name: &str, network: &Network) -> String {
    let create = aws.elb.create_load_balancer().name(name);
    let create = create.set_subnets(Some(network.subnets.clone()));
    let made = create.send().await.expect("a load balancer");
    let arn = made.load_balancers()[0].load_balancer_arn();
    arn.expect("ARN").to_owned()
}

/// A target group; its ARN.
async fn group(
    aws: &Direct,
    name: &str,
    network: &Network,
    port: i32,
    (protocol, version): &(ProtocolEnum, &str),
) -> String {
    let create = aws.elb.create_target_group().name(name);
    let create = create
        .protocol(protocol.clone())
        .protocol_version(*version)
        .port(port)
        .vpc_id(&network.id)
        .target_type(TargetTypeEnum::Ip);
    let made = create.send().await.expect("a target group");
    let arn = made.target_groups()[0].target_group_arn();
    arn.expect("ARN").to_owned()
}

/// The action of the listener.
fn shares(wish: &Wish, groups: &[String; 2]) -> Action {
    let mut action = forward(&[(&groups[0], wish.weights[0]), (&groups[1], wish.weights[1])]);
    if wish.sticky {
        let sticky = TargetGroupStickinessConfig::builder()
            .enabled(true)
            .duration_seconds(600)
            .build();
        let config = action.forward_config.as_mut().expect("forwards");
        config.target_group_stickiness_config = Some(sticky);
    }
    action
}

/// A listener for users; its ARN.
async fn listener(aws: &Direct, balancer: &str, action: Action) -> String {
    let create = aws.elb.create_listener().load_balancer_arn(balancer);
    let create = create
        .protocol(ProtocolEnum::Http)
        .port(80)
        .default_actions(action);
    let made = create.send().await.expect("a listener");
    made.listeners()[0].listener_arn().expect("ARN").to_owned()
}

/// What an arm runs.
async fn task_definition(aws: &Direct, name: &str, wish: &Wish, arm: usize) {
    let family = format!("{name}-{}", wish.arms[arm]);
    let container = |name: &str, image: &str| {
        let port = PortMapping::builder().container_port(wish.port).build();
        let ports = (name == wish.front()).then(|| vec![port]);
        ContainerDefinition::builder()
            .name(name)
            .image(image)
            .essential(true)
            .set_port_mappings(ports)
    };
    let role = KeyValuePair::builder().name("ROLE").value(&family).build();
    let beside = wish.beside.iter();
    let mut containers: Vec<_> = beside
        .map(|(n, image)| container(n, image).build())
        .collect();
    containers.push(container("app", wish.images[arm]).environment(role).build());
    let [cpu, memory] = wish.sizes[arm];
    aws.ecs
        .register_task_definition()
        .family(family)
        .network_mode(NetworkMode::Awsvpc)
        .requires_compatibilities(Compatibility::Fargate)
        .cpu(cpu)
        .memory(memory)
        .set_container_definitions(Some(containers))
        .send()
        .await
        .expect("a task definition");
}

/// The tasks of an arm, in its group.
async fn service(
    aws: &Direct,
    name: &str,
    wish: &Wish,
    arm: usize,
    (network, group): (&Network, &str),
) {
    let own = format!("{name}-{}", wish.arms[arm]);
    let vpc = AwsVpcConfiguration::builder().set_subnets(Some(network.subnets.clone()));
    let vpc = vpc.build().expect("subnets");
    let breaker = DeploymentCircuitBreaker::builder()
        .enable(wish.breaker)
        .rollback(wish.breaker);
    let deployment = DeploymentConfiguration::builder().deployment_circuit_breaker(breaker.build());
    let behind = LoadBalancer::builder()
        .target_group_arn(group)
        .container_name(wish.front())
        .container_port(wish.port);
    let network = NetworkConfiguration::builder().awsvpc_configuration(vpc);
    aws.ecs
        .create_service()
        .cluster(name)
        .service_name(&own)
        .task_definition(&own)
        .desired_count(wish.tasks[arm])
        .launch_type(LaunchType::Fargate)
        .deployment_configuration(deployment.build())
        .network_configuration(network.build())
        .load_balancers(behind.build())
        .send()
        .await
        .expect("a service");
}

/// Time passes there by looking: lets both services become steady.
async fn become_steady(aws: &Direct, made: &Made) {
    let services = made.arms.clone().map(|arm| format!("{}-{arm}", made.name));
    for _ in 0..6 {
        let describe = aws.ecs.describe_services().cluster(&made.cluster);
        let describe = describe.set_services(Some(services.to_vec()));
        describe.send().await.expect("services");
    }
}

/// One rollout with all that it stands on.
pub struct Bottle {
    pub made: Made,
    pub proxy: Proxy,
    pub clock: Arc<VirtualClock>,
    pub store: Arc<MemoryStore>,
    pub target: Arc<AwsTarget>,
    pub strategy: Arc<dyn Strategy>,
    pub header: Header,
    pub options: Options,
}

/// How to find a hand-made target.
pub fn find(made: &Made) -> Find {
    Find {
        listener: Some(made.listener.clone()),
        cluster: Some(made.cluster.clone()),
        ..Find::default()
    }
}

/// The target as the engine finds it, through a proxy.
pub async fn reach(proxy: &Proxy, find: Find, clock: Arc<dyn Clock>) -> AwsTarget {
    let access = Access {
        region: Some(REGION.to_owned()),
        ..Access::default()
    };
    let clients = Clients::connect(&access, &impatient(&proxy.endpoint)).await;
    let found = engine::target::aws::discover(&clients, &find).await;
    let found = found.unwrap_or_else(|e| panic!("{e}"));
    let spec = AwsSpec {
        found: Some(found.clone()),
        ..looked_for(access, find)
    };
    AwsTarget::new(clients, spec, found, clock)
}

impl Bottle {
    pub async fn new(wish: Wish, strategy: Arc<dyn Strategy>, parameters: Value) -> Self {
        let made = make(&wish).await;
        Self::around(made, strategy, parameters).await
    }

    /// The same around what is there.
    pub async fn around(made: Made, strategy: Arc<dyn Strategy>, parameters: Value) -> Self {
        let proxy = Proxy::start().await;
        let clock = Arc::new(VirtualClock::new(START));
        let target = Arc::new(reach(&proxy, find(&made), clock.clone()).await);
        let live = target.observe().await.unwrap_or_else(|e| panic!("{e}"));
        let mut header = header(&live, target.identity(), parameters);
        // The driver goes by the routes that a rollout is pinned to.
        if !target.found().also.is_empty() {
            header.target = TargetSpec::Aws(Box::new(AwsSpec {
                found: Some(target.found().clone()),
                ..looked_for(Access::default(), find(&made))
            }));
        }
        proxy.take();
        Self::filled(made, proxy, clock, (target, strategy, header))
    }

    /// A rollout as the engine has made it ready.
    pub async fn of(made: Made, strategy: Arc<dyn Strategy>, ready: Ready) -> Self {
        let proxy = Proxy::start().await;
        let clock = Arc::new(VirtualClock::new(START));
        let (target, header) = taken_over(&proxy, &clock, ready).await;
        Self::filled(made, proxy, clock, (target, strategy, header))
    }

    fn filled(
        made: Made,
        proxy: Proxy,
        clock: Arc<VirtualClock>,
        (target, strategy, header): (Arc<AwsTarget>, Arc<dyn Strategy>, Header),
    ) -> Self {
        Self {
            made,
            proxy,
            clock,
            store: Arc::new(MemoryStore::default()),
            target,
            strategy,
            header,
            options: Options {
                signal_poll_ms: 60_000,
                ..Options::default()
            },
        }
    }

    /// A new version for the candidate.
    #[must_use]
    pub fn image(mut self, image: &str) -> Self {
        self.header.candidate = Some(Release {
            version: image.to_owned(),
            source: Source::Image(image.to_owned()),
        });
        self
    }

    /// Takes over a rollout as the engine has made it ready.
    pub async fn adopt(&mut self, ready: Ready) {
        (self.target, self.header) = taken_over(&self.proxy, &self.clock, ready).await;
    }

    pub fn driver(&self) -> Driver {
        Driver {
            store: self.store.clone(),
            clock: self.clock.clone(),
            resolve: Arc::new(Resolver {
                target: self.target.clone(),
                strategy: self.strategy.clone(),
            }),
            owner: owner(),
            options: self.options,
        }
    }

    /// A driver of another process, which is to die.
    pub fn doomed(&self) -> Driver {
        let mut driver = self.driver();
        driver.owner.started = "dead".to_owned();
        driver
    }

    pub async fn run(&self) -> Standing {
        self.driver()
            .begin(self.header.clone())
            .await
            .expect("it begins");
        self.go_on().await.expect("the driver works")
    }

    pub async fn go_on(&self) -> Result<Standing, RolloutError> {
        let mut fleet = Fleet::new(self.driver());
        fleet.add(ID.to_owned(), self.clock.now());
        lab::stopped(fleet.next().await)
    }

    pub async fn journal(&self) -> Vec<Entry> {
        self.store.load(ID, 0).await.expect("memory")
    }

    /// The target as it is, without the proxy's trouble.
    pub async fn live(&self) -> Observed {
        self.proxy.calm();
        self.target
            .observe()
            .await
            .unwrap_or_else(|e| panic!("{e}"))
    }

    /// Lets the virtual day of an arm be as described, a minute at a time.
    pub async fn traffic(&self, arm: usize, minutes: std::ops::Range<i64>, minute: Minute) {
        traffic(&self.made, arm, minutes, minute).await;
    }

    /// The part of it that was in one zone.
    pub async fn traffic_in(
        &self,
        zone: &str,
        arm: usize,
        minutes: std::ops::Range<i64>,
        minute: Minute,
    ) {
        put_traffic(&self.made, arm, minutes, minute, Some(zone)).await;
    }
}

/// The target and the header of a rollout that is ready, through a proxy.
async fn taken_over(
    proxy: &Proxy,
    clock: &Arc<VirtualClock>,
    ready: Ready,
) -> (Arc<AwsTarget>, Header) {
    let TargetSpec::Aws(spec) = &ready.header.target else {
        panic!("on AWS");
    };
    let clients = Clients::connect(&spec.access, &impatient(&proxy.endpoint)).await;
    let found = spec.found.clone().expect("pinned");
    let target = AwsTarget::new(clients, (**spec).clone(), found, clock.clone());
    let header = Header {
        rollout: ID.to_owned(),
        created: START,
        ..ready.header
    };
    (Arc::new(target), header)
}

/// What an arm does in a minute.
#[derive(Clone, Copy)]
pub struct Minute {
    pub requests: u32,
    pub errors: u32,
    /// Requests that got no answer.
    pub unanswered: u32,
    pub latency_ms: f64,
}

pub const GOOD: Minute = Minute {
    requests: 600,
    errors: 0,
    unanswered: 0,
    latency_ms: 40.0,
};

/// Puts metrics as a load balancer would, from START on.
pub async fn traffic(made: &Made, arm: usize, minutes: std::ops::Range<i64>, minute: Minute) {
    put_traffic(made, arm, minutes, minute, None).await;
}

async fn put_traffic(
    made: &Made,
    arm: usize,
    minutes: std::ops::Range<i64>,
    minute: Minute,
    zone: Option<&str>,
) {
    let aws = direct().await;
    let tail = |arn: &str| {
        let tail = arn.rsplit(':').next().expect("an ARN");
        tail.trim_start_matches("loadbalancer/").to_owned()
    };
    let dimension = |name: &str, value: &str| Dimension::builder().name(name).value(value).build();
    let mut dimensions = vec![
        dimension("TargetGroup", &tail(&made.groups[arm])),
        dimension("LoadBalancer", &tail(&made.balancer)),
    ];
    dimensions.extend(zone.map(|zone| dimension("AvailabilityZone", zone)));
    let mut data = vec![];
    for n in minutes {
        let at = i64::try_from(START).expect("small") + n * 60_000;
        let datum = |name: &str| {
            MetricDatum::builder()
                .metric_name(name)
                .timestamp(DateTime::from_millis(at))
                .set_dimensions(Some(dimensions.clone()))
        };
        data.push(
            datum("RequestCount")
                .value(f64::from(minute.requests))
                .build(),
        );
        if minute.requests > minute.errors + minute.unanswered {
            let answered = f64::from(minute.requests - minute.errors - minute.unanswered);
            data.push(datum("HTTPCode_Target_2XX_Count").value(answered).build());
        }
        if minute.errors > 0 {
            let errors = f64::from(minute.errors);
            data.push(datum("HTTPCode_Target_5XX_Count").value(errors).build());
        }
        data.push(
            datum("TargetResponseTime")
                .values(minute.latency_ms / 1_000.0)
                .counts(f64::from(minute.requests - minute.unanswered).max(1.0))
                .build(),
        );
    }
    for some in data.chunks(900) {
        aws.cloudwatch
            .put_metric_data()
            .namespace("AWS/ApplicationELB")
            .set_metric_data(Some(some.to_vec()))
            .send()
            .await
            .expect("metrics");
    }
}

fn header(live: &Observed, identity: &str, parameters: Value) -> Header {
    let arm = |index: usize, role| Arm {
        name: live.arms[index].name.clone(),
        role,
        version: live.arms[index].release.version.clone(),
    };
    let tasks = |index: usize| live.arms[index].tasks.expect("a service");
    Header {
        rollout: ID.to_owned(),
        created: START,
        target: TargetSpec::Simulated {
            name: "in a bottle".to_owned(),
        },
        identity: identity.to_owned(),
        sample_period_ms: 60_000,
        arms: vec![arm(0, Role::Stable), arm(1, Role::Candidate)],
        baseline: live.weights(),
        stable: Some(live.arms[0].release.clone()),
        promotion: Promotion::Copy,
        capacity: Some(Capacity::of(
            tasks(0),
            live.weights().share(&live.arms[0].name),
            tasks(1),
        )),
        guardrails: Guardrails::on_aws(),
        work: fixture::strategy(parameters),
        ..fixture::header()
    }
}

/// The header of one verb.
pub fn verb(bottle: &Bottle, weights: Weights) -> Header {
    Header {
        capacity: None,
        guardrails: Guardrails {
            healthy_timeout_ms: 0,
            ..Guardrails::default()
        },
        caps: <_>::default(),
        work: Work::Verb {
            verb: "set-weights".to_owned(),
            actor: "test".to_owned(),
            weights,
        },
        ..bottle.header.clone()
    }
}

/// Parameters of a canary of three steps.
pub fn three_steps() -> Value {
    json!({"gate": "limits", "steps": [10, 50, 100], "bake": "5m"})
}

/// An alarm of CloudWatch in that state.
pub async fn alarm(name: &str, state: &str) {
    let aws = direct().await;
    aws.cloudwatch
        .put_metric_alarm()
        .alarm_name(name)
        .namespace("Test")
        .metric_name("m")
        .period(60)
        .evaluation_periods(1)
        .threshold(1.0)
        .statistic(aws_sdk_cloudwatch::types::Statistic::Sum)
        .comparison_operator(aws_sdk_cloudwatch::types::ComparisonOperator::GreaterThanThreshold)
        .send()
        .await
        .expect("an alarm");
    let state = aws_sdk_cloudwatch::types::StateValue::from(state);
    aws.cloudwatch
        .set_alarm_state()
        .alarm_name(name)
        .state_value(state)
        .state_reason("checkout is slow")
        .send()
        .await
        .expect("its state");
}
