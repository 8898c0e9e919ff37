//! How a process reaches other machines: through which proxies, and whose certificates
//! it trusts. Pure.

use std::path::PathBuf;

/// Destinations that are never reached through a proxy: this machine, and the services
/// that give credentials to a machine or a task on AWS.
const DIRECT: &str = "localhost,127.0.0.0/8,::1,169.254.0.0/16,fd00:ec2::/32";

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
}

/// The URL of a proxy may have a password in it.
impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("https_proxy", &self.https_proxy.is_some())
            .field("http_proxy", &self.http_proxy.is_some())
            .field("no_proxy", &self.no_proxy)
            .field("ca_bundle", &self.ca_bundle)
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
        }
    }

    /// Leaves out proxies that cannot be used, and says which those are.
    pub fn settle(&mut self) -> Vec<String> {
        let mut troubles = vec![];
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
        format!("{DIRECT},{}", self.no_proxy)
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
        let mut none = read(&[("HTTP_PROXY", "http://p"), ("NO_PROXY", "*")]);
        none.settle();
        assert_eq!(none.http_proxy, None);
    }
}
