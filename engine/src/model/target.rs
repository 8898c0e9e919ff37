//! What is rolled out where, as a rollout pins it: the engine's own balancer, or a
//! load balancer on AWS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::aws::{Also, AwsSpec};
use super::{DemoFault, Release, Source};

/// The default address of the admin API of `engine local`.
pub const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7900);
/// The default address of `engine local` itself.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// How long a backend may take by default until the headers of its answer, ms: as long
/// as a load balancer on AWS waits.
pub const RESPONSE_TIMEOUT_MS: u32 = 60_000;

/// What is rolled out where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum TargetSpec {
    /// A balancer that already runs (`engine local`), by its admin address.
    Local {
        /// Where its admin API listens; always loopback.
        admin: SocketAddr,
    },
    /// A balancer inside the process that runs the rollout.
    Embedded {
        /// How it is set up.
        local: Box<LocalSpec>,
        /// Where it keeps weights and releases between processes.
        state: Option<String>,
        /// Requests per second that the built-in client sends; 0 for none.
        load_rps: u32,
    },
    /// An application load balancer before two ECS services.
    Aws(Box<AwsSpec>),
    /// A simulated target, for simulations and tests.
    Simulated {
        /// Identity of the target.
        name: String,
    },
}

impl TargetSpec {
    /// The other routes that move with that of the target, as it is pinned.
    #[must_use]
    pub fn also(&self) -> &[Also] {
        match self {
            Self::Aws(spec) => spec.found.as_ref().map_or(&[], |found| &found.also),
            _ => &[],
        }
    }

    /// Where the admin API of a local balancer listens.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        match self {
            Self::Local { admin } => Some(*admin),
            Self::Embedded { local, .. } => Some(local.admin),
            Self::Aws(_) | Self::Simulated { .. } => None,
        }
    }

    /// The same with these routes, which move with that of the target too.
    #[must_use]
    pub fn with(&self, more: &[Also]) -> Self {
        let mut all = self.clone();
        if let Self::Aws(spec) = &mut all
            && let Some(found) = &mut spec.found
        {
            found.also.extend_from_slice(more);
        }
        all
    }
}

/// The set-up of a local balancer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LocalSpec {
    /// Where users send requests. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where the admin API listens. Port 0 picks a free one.
    pub admin: SocketAddr,
    /// The two arms, the stable one first.
    pub arms: Vec<LocalArm>,
    /// Seconds that a client stays on its arm; 0 turns the cookie off.
    pub sticky_seconds: u32,
    /// How long a replaced release may finish its requests, ms.
    pub drain_ms: u32,
    /// How long a backend may take until the headers of its answer, and be silent
    /// within it while the client waits, ms.
    pub response_timeout_ms: u32,
    /// Active health checks.
    pub health: HealthCheck,
    /// Speak HTTP/2 to the arms (for gRPC); HTTP/1.1 otherwise.
    pub upstream_http2: bool,
    /// A file (PEM) with the authority that signs the certificates of arms with an
    /// `https://` address; if `None`, no certificate is verified, as AWS load balancers
    /// verify none of their targets'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_ca: Option<String>,
    /// Limits for its clients.
    #[serde(default)]
    pub clients: Clients,
}

/// Limits for the clients of a local balancer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Clients {
    /// Most connections at the same time, and most requests at the same time; fewer where
    /// the operating system allows the process too few file descriptors.
    pub connections: u32,
    /// How long a connection may be silent between two requests, in the middle of the
    /// headers, or while it is written to, ms.
    pub idle_ms: u32,
    /// How long a client may take for the next part of its body, ms.
    pub body_ms: u32,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            connections: 4_096,
            idle_ms: 60_000,
            body_ms: 30_000,
        }
    }
}

/// One arm of a local balancer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LocalArm {
    /// Its name.
    pub name: String,
    /// Its weight at first, from 0 to 999.
    pub weight: u32,
    /// What it runs at first.
    pub release: Release,
}

/// Active health checks of the backends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HealthCheck {
    /// What the check speaks.
    #[serde(default, skip_serializing_if = "HealthProtocol::is_http")]
    pub protocol: HealthProtocol,
    /// Path of the request.
    pub path: String,
    /// Time between two checks, ms.
    pub interval_ms: u32,
    /// How long one check may take, ms.
    pub timeout_ms: u32,
    /// Successes in a row that make a backend healthy.
    pub healthy_after: u32,
    /// Failures in a row that make a backend unhealthy.
    pub unhealthy_after: u32,
}

impl HealthProtocol {
    /// Whether it is the usual one, which is not written down.
    #[must_use]
    pub fn is_http(&self) -> bool {
        *self == Self::Http
    }
}

/// What a health check speaks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HealthProtocol {
    /// A GET request, over the version of HTTP that the traffic has.
    #[default]
    Http,
    /// The gRPC health protocol (`grpc.health.v1`).
    Grpc {
        /// The service that is asked about; empty for the whole server.
        service: String,
    },
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            protocol: HealthProtocol::default(),
            path: "/healthz".to_owned(),
            interval_ms: 500,
            timeout_ms: 2_000,
            healthy_after: 2,
            unhealthy_after: 3,
        }
    }
}

impl LocalSpec {
    /// Two demo versions, the second with a fault.
    #[must_use]
    pub fn demo(fault: DemoFault) -> Self {
        let arm = |name: &str, weight, version: &str, fault| LocalArm {
            name: name.to_owned(),
            weight,
            release: Release {
                version: version.to_owned(),
                source: Source::Demo(fault),
            },
        };
        Self {
            listen: LISTEN_DEFAULT,
            admin: ADMIN_DEFAULT,
            arms: vec![
                arm("stable", 100, "v1", DemoFault::default()),
                arm("canary", 0, "v2", fault),
            ],
            sticky_seconds: 0,
            drain_ms: 10_000,
            response_timeout_ms: RESPONSE_TIMEOUT_MS,
            health: HealthCheck::default(),
            upstream_http2: false,
            upstream_ca: None,
            clients: Clients::default(),
        }
    }

    /// The same balancer with other arm names, such as blue and green.
    #[must_use]
    pub fn with_names(mut self, names: [String; 2]) -> Self {
        for (arm, name) in self.arms.iter_mut().zip(names) {
            arm.name = name;
        }
        self
    }
}
