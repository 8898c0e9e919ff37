//! How a process reaches other machines: through which proxies, and whose certificates
//! it trusts. Pure.

use std::path::PathBuf;

/// Destinations that are never reached through a proxy: this machine, and the services
/// that give credentials to a machine or a task on AWS.
const DIRECT: &str = "localhost,127.0.0.0/8,::1,169.254.0.0/16,fd00:ec2::/32";

/// What the environment says of calls to AWS, beside what the SDK reads for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AwsVariables {
    /// The profile (`AWS_PROFILE`).
    pub profile: Option<String>,
    /// The region (`AWS_REGION`, else `AWS_DEFAULT_REGION`).
    pub region: Option<String>,
    /// The file of a web identity token (`AWS_WEB_IDENTITY_TOKEN_FILE`).
    pub web_identity: Option<String>,
    /// Where a container gets its credentials (`AWS_CONTAINER_CREDENTIALS_FULL_URI`, or
    /// the path in `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`).
    pub container: Option<String>,
    /// Attempts of a call (`AWS_MAX_ATTEMPTS`).
    max_attempts: Option<String>,
    /// How they follow each other (`AWS_RETRY_MODE`).
    retry_mode: Option<String>,
}

impl AwsVariables {
    /// Attempts of a call, the first one too.
    #[must_use]
    pub fn attempts(&self) -> Option<u32> {
        self.max_attempts.as_ref()?.parse().ok().filter(|n| *n > 0)
    }

    /// Whether calls are slowed down after AWS has throttled one.
    #[must_use]
    pub fn is_adaptive(&self) -> bool {
        self.retry_mode.as_deref() == Some("adaptive")
    }

    /// What is left out because it cannot be used.
    fn troubles(&self) -> Vec<String> {
        let mut troubles = vec![];
        if let Some(given) = &self.max_attempts
            && self.attempts().is_none()
        {
            troubles.push(format!(
                "AWS_MAX_ATTEMPTS is {given:?} and not used; write a whole number from 1"
            ));
        }
        if let Some(given) = &self.retry_mode
            && !["standard", "adaptive"].contains(&given.as_str())
        {
            troubles.push(format!(
                "AWS_RETRY_MODE is {given:?} and not used; write standard or adaptive"
            ));
        }
        troubles
    }
}

/// Proxies and certificates, as the environment names them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The proxy for `https://` addresses: a URL, perhaps with a name and a password.
    pub https_proxy: Option<String>,
    /// The proxy for `http://` addresses.
    pub http_proxy: Option<String>,
    /// Hosts, domains and networks that are reached without a proxy, with commas between
    /// them; `*` for all.
    pub no_proxy: String,
    /// A file of certificates (PEM) that are trusted besides those of this machine.
    pub ca_bundle: Option<PathBuf>,
    /// What it says of calls to AWS.
    pub aws: AwsVariables,
}

/// The URL of a proxy may have a password in it.
impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("https_proxy", &self.https_proxy.is_some())
            .field("http_proxy", &self.http_proxy.is_some())
            .field("no_proxy", &self.no_proxy)
            .field("ca_bundle", &self.ca_bundle)
            .field("aws", &self.aws)
            .finish()
    }
}

impl Network {
    /// What the environment names, by a look at one variable after another. Lower case
    /// counts more, as with other programs, and an empty variable as none.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let one_of = |names: &[&str]| {
            let mut all = names.iter().filter_map(|name| variable(name));
            all.find(|value| !value.is_empty())
        };
        Self {
            https_proxy: one_of(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            http_proxy: one_of(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
            no_proxy: one_of(&["no_proxy", "NO_PROXY"]).unwrap_or_default(),
            ca_bundle: one_of(&["AWS_CA_BUNDLE"]).map(PathBuf::from),
            aws: AwsVariables {
                profile: one_of(&["AWS_PROFILE"]),
                region: one_of(&["AWS_REGION", "AWS_DEFAULT_REGION"]),
                web_identity: one_of(&["AWS_WEB_IDENTITY_TOKEN_FILE"]),
                container: one_of(&[
                    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                ]),
                max_attempts: one_of(&["AWS_MAX_ATTEMPTS"]),
                retry_mode: one_of(&["AWS_RETRY_MODE"]),
            },
        }
    }

    /// Leaves out what cannot be used, and says what that is.
    pub fn settle(&mut self) -> Vec<String> {
        let mut troubles = self.aws.troubles();
        if self.no_proxy.trim() == "*" {
            (self.https_proxy, self.http_proxy) = (None, None);
        }
        for (name, proxy) in [
            ("HTTPS_PROXY", &mut self.https_proxy),
            ("HTTP_PROXY", &mut self.http_proxy),
        ] {
            let Some(given) = proxy.take() else {
                continue;
            };
            let address = given.split_once("://").map_or(&given[..], |(_, rest)| rest);
            let host = address.rsplit('@').next().unwrap_or_default();
            if host.trim_end_matches('/').is_empty() || given.contains(char::is_whitespace) {
                troubles.push(format!(
                    "the proxy that {name} (or ALL_PROXY) names is not used, because it cannot be read as an address; write http://HOST:PORT"
                ));
                continue;
            }
            match given.split_once("://") {
                None => *proxy = Some(format!("http://{given}")),
                Some(("http", _)) => *proxy = Some(given),
                Some((scheme, _)) => troubles.push(format!(
                    "the proxy that {name} (or ALL_PROXY) names is not used, because the engine can speak to a proxy by http:// alone, and not by {scheme}://"
                )),
            }
        }
        troubles
    }

    /// What is reached without a proxy, in the form of `NO_PROXY`.
    #[must_use]
    pub fn direct(&self) -> String {
        // Some programs want an IPv6 address as it stands in a URL, others without brackets.
        let bare = self.no_proxy.replace(['[', ']'], "");
        format!("{DIRECT},{bare}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_other_programs_read_them() {
        let read = |set: &[(&str, &str)]| {
            let set: Vec<(String, String)> = set
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            Network::read(|name| set.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()))
        };
        assert_eq!(read(&[]), Network::default());
        let both = read(&[("HTTPS_PROXY", "http://a"), ("https_proxy", "http://b")]);
        assert_eq!(both.https_proxy.as_deref(), Some("http://b"));
        assert_eq!(both.http_proxy, None);
        let all = read(&[("ALL_PROXY", "c:3128"), ("https_proxy", "")]);
        assert_eq!(all.https_proxy, all.http_proxy);
        let mut all = all;
        assert_eq!(all.settle(), Vec::<String>::new());
        assert_eq!(all.https_proxy.as_deref(), Some("http://c:3128"));
        let mut socks = read(&[("HTTPS_PROXY", "socks5://u:S3CRET@p"), ("NO_PROXY", "a.b")]);
        assert!(!format!("{socks:?}").contains("S3CRET"));
        let said = socks.settle().join("");
        assert!(
            said.contains("not by socks5://") && !said.contains("S3CRET"),
            "{said}"
        );
        assert_eq!(socks.https_proxy, None);
        assert!(socks.direct().ends_with(",a.b"));
        let aws = read(&[("AWS_MAX_ATTEMPTS", "7"), ("AWS_RETRY_MODE", "adaptive")]).aws;
        assert_eq!((aws.attempts(), aws.is_adaptive()), (Some(7), true));
        for (name, wrong) in [
            ("AWS_MAX_ATTEMPTS", "0"),
            ("AWS_MAX_ATTEMPTS", "many"),
            ("AWS_MAX_ATTEMPTS", "-1"),
            ("AWS_RETRY_MODE", "legacy"),
        ] {
            let mut odd = read(&[(name, wrong)]);
            let said = odd.settle().join("");
            assert!(said.contains(name) && said.contains(wrong), "{said}");
            assert_eq!((odd.aws.attempts(), odd.aws.is_adaptive()), (None, false));
        }
        let literal = read(&[("NO_PROXY", "[fd00::7],fd01::/16, [::2]")]);
        assert!(literal.direct().ends_with(",fd00::7,fd01::/16, ::2"));
        let mut none = read(&[("HTTP_PROXY", "http://p"), ("NO_PROXY", "*")]);
        none.settle();
        assert_eq!(none.http_proxy, None);
    }
}
