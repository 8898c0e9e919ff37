//! Addresses of servers, as people write them: of arms, of probes and of sources of
//! metrics. Pure.

use std::net::SocketAddr;

use hyper::Uri;

/// The port of an address that names none.
#[must_use]
pub fn port_of(address: &Uri) -> u16 {
    let usual = match address.scheme_str() {
        Some("https") => 443,
        _ => 80,
    };
    address.port_u16().unwrap_or(usual)
}

/// The address of a server, with a path or without one, behind which the engine puts the
/// path of a request.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with the address.
pub fn base(text: &str) -> Result<Uri, String> {
    let (_, rest) = text
        .split_once("://")
        .filter(|(scheme, _)| ["http", "https"].contains(scheme))
        .ok_or("must start with http:// or https://")?;
    if text.contains(char::is_whitespace) {
        return Err("has a space in it".to_owned());
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("names a user, which is not sent; leave it out".to_owned());
    }
    // Its last group would be read as a port, or as nothing at all.
    if authority.matches(':').count() > 1 && !authority.starts_with('[') {
        return Err(
            "has an IPv6 address without brackets; write it as in http://[2001:db8::7]:9001"
                .to_owned(),
        );
    }
    if rest.contains(['?', '#']) {
        return Err("has a query or a fragment, behind which no path can be put".to_owned());
    }
    let address = text.parse::<Uri>().ok();
    let host = address.as_ref().and_then(Uri::host).unwrap_or_default();
    let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let is_host =
        !host.is_empty() && literal.is_none_or(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
    // A port that is none is not read as one, and not refused either.
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    let is_port = |port: &str| port.ends_with(']') || port.parse::<u16>().is_ok_and(|p| p > 0);
    match address {
        Some(address) if is_host && port.is_none_or(is_port) => Ok(address),
        _ => Err(
            "is not an address; write http://HOST:PORT or https://HOST:PORT, an IPv6 address in brackets"
                .to_owned(),
        ),
    }
}

/// The address of a server that gets the paths of requests as they are.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with the address.
pub fn server(text: &str) -> Result<Uri, String> {
    let address = base(text)?;
    if matches!(address.path(), "" | "/") {
        return Ok(address);
    }
    Err(format!(
        "has the path {}, and an arm gets the path that the client asked for, as it is behind an AWS load balancer; write scheme, host and port alone",
        address.path()
    ))
}

/// The address and port of a listener.
///
/// # Errors
/// It is none, with what to write instead.
pub fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
        let named = host.chars().any(|c| c.is_ascii_alphabetic()) && !host.contains(':');
        let why = if named {
            "the name may have several addresses; "
        } else {
            ""
        };
        format!("{why}write IP:PORT, such as 127.0.0.1:7900 or [::1]:7900")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_has_an_address_and_a_port() {
        for text in ["127.0.0.1:0", "[::1]:7900", "[::]:8080", "0.0.0.0:80"] {
            assert_eq!(socket(text).expect(text).to_string(), text);
        }
        for text in ["::1:7900", "[::1]", "127.0.0.1", ":80", "1.2.3.4:99999"] {
            let said = socket(text).expect_err(text);
            assert!(said.starts_with("write IP:PORT"), "{text}: {said}");
        }
        for text in ["localhost:7900", "shop.example:80", "localhost"] {
            let said = socket(text).expect_err(text);
            assert!(said.contains("several addresses"), "{text}: {said}");
        }
    }

    #[test]
    fn addresses_have_a_scheme_a_host_and_perhaps_a_port_and_a_path() {
        for (text, host, port) in [
            ("http://127.0.0.1:9001", "127.0.0.1", 9001),
            ("http://[::1]:9001/", "[::1]", 9001),
            ("https://[2001:db8::7]", "[2001:db8::7]", 443),
            ("https://shop.example", "shop.example", 443),
            ("http://shop", "shop", 80),
        ] {
            let address = server(text).unwrap_or_else(|e| panic!("{text} {e}"));
            assert_eq!((address.host(), port_of(&address)), (Some(host), port));
        }
        let prefixed = base("https://shop.example:8443/api/v2/").expect("a path is fine");
        assert_eq!(prefixed.path(), "/api/v2/");
        assert!(server("https://shop.example:8443/api").is_err());
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (text, why) in [
            ("shop.example", "must start with http://"),
            ("ftp://shop", "must start with http://"),
            ("127.0.0.1:80", "must start with http://"),
            ("http://", "is not an address"),
            ("http://:80", "is not an address"),
            ("http://shop:0", "is not an address"),
            ("http://shop:99999", "is not an address"),
            ("http://shop:", "is not an address"),
            ("http://[::1", "is not an address"),
            ("http://[fe80::1%25eth0]:80", "is not an address"),
            ("http://[1.2.3.4]:80", "is not an address"),
            ("http://::1:9001", "without brackets"),
            ("https://fd00::7/x", "without brackets"),
            ("http://2001:db8::7", "without brackets"),
            ("http://me@shop", "names a user"),
            ("https://me:pw@[::1]:80", "names a user"),
            ("http://shop/?a=b", "a query or a fragment"),
            ("http://shop#x", "a query or a fragment"),
            ("http://shop /", "a space"),
        ] {
            let said = base(text).expect_err(text);
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
