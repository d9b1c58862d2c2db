use std::net::IpAddr;

use torwart_api::Port;

use super::*;
use crate::values::SeenService;

fn mk_ports(ports: &[(&str, u16)]) -> Vec<SeenPort> {
    ports
        .iter()
        .map(|(name, port)| SeenPort {
            name: name.trim_start_matches('!').to_owned(),
            port: *port,
            usable: !name.starts_with('!'),
        })
        .collect()
}

fn find(
    kind: ServiceKind,
    ports: &[(&str, u16)],
    port: &str,
    protocol: Protocol,
) -> Result<ServiceTarget, String> {
    let mut cluster = Cluster::default();
    cluster
        .services
        .insert(("mail".to_owned(), "mx".to_owned()), SeenService { kind, ports: mk_ports(ports) });
    let port = match port.parse::<u16>() {
        Ok(number) => Port::new(number).map(ServicePort::Number),
        Err(_) => Some(port).filter(|port| !port.is_empty()).map(|name| ServicePort::Name(name.to_owned())),
    };
    let service = ServiceRef { name: "mx".to_owned(), port };
    find_service(&cluster, "mail", &service, protocol).map_err(|error| match error {
        Unresolved::Missing(message) => message,
        Unresolved::Refused(message) => format!("refused: {message}"),
    })
}

#[test]
fn a_services_port_is_the_one_that_is_meant() {
    let (smtp, lmtp) = (Protocol::Smtp, Protocol::Lmtp);
    type Row = (&'static [(&'static str, u16)], &'static str, Protocol, Option<u16>);
    let rows: &[Row] = &[
        (&[("", 2525)], "", smtp, Some(2525)),
        (&[("http", 80), ("smtp", 2525)], "", smtp, Some(2525)),
        (&[("smtp", 2525), ("lmtp", 2424)], "", lmtp, Some(2424)),
        (&[("smtp", 2525), ("lmtp", 2424)], "", smtp, Some(2525)),
        (&[("a", 25), ("b", 24)], "", smtp, Some(25)),
        (&[("a", 25), ("b", 24)], "", lmtp, Some(24)),
        (&[("a", 1), ("b", 2)], "", smtp, None),
        (&[("!dns", 53), ("a", 2525)], "", smtp, Some(2525)),
        (&[("!smtp", 25)], "", smtp, None),
        (&[("a", 1), ("b", 2)], "b", smtp, Some(2)),
        (&[("a", 1), ("b", 2)], "1", smtp, Some(1)),
        (&[("a", 1)], "2", smtp, None),
        (&[("a", 1)], "c", smtp, None),
        (&[("!a", 1), ("b", 2)], "a", smtp, None),
        (&[], "", smtp, None),
    ];
    for (ports, wanted, protocol, expected) in rows {
        let found = find(ServiceKind::Headless, ports, wanted, *protocol);
        assert_eq!(
            found.as_ref().ok().map(|target| target.port),
            *expected,
            "{ports:?} {wanted:?} {found:?}"
        );
        if let Err(message) = found {
            assert!(message.contains("mail/mx"), "{message}");
        }
    }
}

#[test]
fn a_service_is_reached_by_its_name_whatever_its_kind() {
    let address: IpAddr = "10.0.0.7".parse().unwrap();
    for (kind, expected) in [
        (ServiceKind::ClusterIp(Some(address)), Some(address)),
        (ServiceKind::ClusterIp(None), None),
        (ServiceKind::Headless, None),
    ] {
        let found = find(kind, &[("smtp", 25)], "", Protocol::Smtp).unwrap();
        assert_eq!(found, ServiceTarget { host: "mx.mail.svc".to_owned(), port: 25, address: expected });
    }
    let message = find(ServiceKind::ExternalName, &[("smtp", 25)], "", Protocol::Smtp).unwrap_err();
    assert!(message.starts_with("refused") && message.contains("name that host instead"), "{message}");
}
