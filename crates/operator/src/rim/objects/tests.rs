use serde_json::json;

use super::*;

fn mk_object(spec: Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "torwart.dev/v1alpha1",
        "kind": "MailDomain",
        "metadata": {
            "name": "shop", "namespace": "team", "uid": "u", "generation": 7, "resourceVersion": "9",
            "creationTimestamp": "2026-11-24T12:00:00Z",
            "annotations": {"torwart.dev/x": "y", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": spec,
        "status": {"observedGeneration": 6},
    }))
    .unwrap()
}

fn mk_good() -> Value {
    json!({"domains": ["shop.example"], "route": {"upstreams": [{"host": "mx.example"}]}})
}

fn see(spec: Value) -> Seen {
    seen(Kind::MailDomain, mk_object(spec))
}

fn metadata_of(seen: &Seen) -> Option<&Metadata> {
    match &seen.form {
        Form::Read(Manifest::MailDomain(domain))
        | Form::Malformed { draft: Some(Manifest::MailDomain(domain)), .. } => Some(&domain.metadata),
        _ => None,
    }
}

#[test]
fn an_object_is_read_with_what_plans_need_and_no_more() {
    let seen = see(mk_good());
    assert_eq!(seen.object, ObjectRef::domain("team", "shop"));
    assert_eq!((seen.uid.as_str(), seen.generation), ("u", 7));
    assert_eq!(seen.status, json!({"observedGeneration": 6}));
    assert!(matches!(seen.form, Form::Read(_)), "{:?}", seen.form);
    let metadata = metadata_of(&seen).unwrap();
    assert_eq!(metadata.generation, Some(7));
    assert_eq!(metadata.creation_timestamp.unwrap().to_string(), "2026-11-24T12:00:00Z");
    assert_eq!(metadata.annotations.keys().collect::<Vec<_>>(), ["torwart.dev/x"]);
}

#[test]
fn fields_of_a_newer_release_are_passed_over() {
    let mut spec = mk_good();
    spec["fromTheFuture"] = json!({"a": 1});
    assert!(matches!(see(spec).form, Form::Read(_)));
}

#[test]
fn whatever_is_in_a_spec_it_becomes_a_value_and_says_what_is_wrong() {
    let mut bad_time = mk_good();
    bad_time["greylisting"] = json!({"delay": "soon"});
    let table = [
        (Value::Null, ""),
        (json!("text"), ""),
        (json!([1, 2]), ""),
        (json!({"domains": 5, "route": {"upstreams": []}}), "domains"),
        (json!({"domains": [{"a": 1}]}), "domains"),
        (json!({"domains": ["shop.example"], "route": {"upstreams": [{"host": "h", "port": -1}]}}), "port"),
        (
            json!({"domains": ["shop.example"], "route": {"upstreams": [{"host": "h", "port": 1e300}]}}),
            "port",
        ),
        (json!({"domains": ["shop.example"], "gatewayRef": 1}), "gatewayRef"),
        (bad_time, "delay"),
    ];
    for (spec, path) in table {
        let seen = see(spec.clone());
        assert_eq!((seen.object.name.as_str(), seen.generation), ("shop", 7), "{spec}");
        let Form::Malformed { errors, .. } = &seen.form else { panic!("{spec} was read: {:?}", seen.form) };
        assert!(!errors.is_empty() && errors.len() <= MOST_MISTAKES, "{spec}: {errors:?}");
        assert!(errors.iter().any(|error| error.path.contains(path)), "{spec}: {errors:?}");
    }
}

#[test]
fn what_can_be_read_of_a_malformed_object_keeps_its_generation_and_age() {
    let mut spec = mk_good();
    spec["greylisting"] = json!({"delay": "soon"});
    let seen = see(spec);
    assert!(matches!(seen.form, Form::Malformed { draft: Some(_), .. }), "{:?}", seen.form);
    let metadata = metadata_of(&seen).unwrap();
    assert_eq!(metadata.generation, Some(7));
    assert!(metadata.creation_timestamp.is_some());
    assert_eq!(annotations(&seen).unwrap().len(), 1);
}

#[test]
fn a_mistake_does_not_grow_with_the_object() {
    let many: Vec<Value> = (0..5000).map(|n| json!({"host": n})).collect();
    let Form::Malformed { errors, .. } = see(json!({"route": {"upstreams": many}})).form else { panic!() };
    assert!(errors.len() <= MOST_MISTAKES);
}

#[test]
fn a_mail_domain_belongs_to_the_gateway_that_it_names_however_badly_the_rest_is_written() {
    let table = [
        (json!({"gatewayRef": {"name": "b"}}), "b"),
        (json!({"gatewayRef": {"name": "b"}, "domains": 5}), "b"),
        (json!({}), "default"),
        (json!({"gatewayRef": {}}), "default"),
        (json!({"gatewayRef": {"name": 5}}), "default"),
        (json!({"gatewayRef": "b"}), "default"),
        (Value::Null, "default"),
    ];
    for (spec, gateway) in table {
        assert_eq!(gateway_of(&mk_object(spec.clone())), gateway, "{spec}");
    }
}

#[test]
fn services_are_read_as_routes_need_them() {
    let read = |spec: Value| service(serde_json::from_value(json!({"spec": spec})).unwrap());
    let ports = json!([
        {"name": "smtp", "port": 25}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"port": 70000}
    ]);
    let seen = read(json!({"clusterIP": "10.0.0.7", "ports": ports}));
    assert_eq!(seen.kind, ServiceKind::ClusterIp(Some("10.0.0.7".parse().unwrap())));
    let port = |name: &str, port, usable| SeenPort { name: name.to_owned(), port, usable };
    assert_eq!(seen.ports, [port("smtp", 25, true), port("dns", 53, false)]);
    let table = [
        (json!({"clusterIP": "None"}), ServiceKind::Headless),
        (json!({"clusterIP": ""}), ServiceKind::ClusterIp(None)),
        (json!({}), ServiceKind::ClusterIp(None)),
        (json!({"type": "ExternalName", "externalName": "x.example"}), ServiceKind::ExternalName),
        (json!({"type": "ExternalName", "clusterIP": "None"}), ServiceKind::ExternalName),
        (
            json!({"type": "LoadBalancer", "clusterIP": "fd00::1"}),
            ServiceKind::ClusterIp("fd00::1".parse().ok()),
        ),
    ];
    for (spec, kind) in table {
        assert_eq!(read(spec.clone()).kind, kind, "{spec}");
    }
}

#[test]
fn only_ready_pods_that_stay_are_asked_at_the_port_named_grpc() {
    let read = |object: Value| pod(serde_json::from_value(object).unwrap());
    let spec = json!({"containers": [
        {"name": "side", "ports": [{"name": "http", "containerPort": 80}]},
        {"name": "verdict", "ports": [{"name": "admin", "containerPort": 9902}, {"name": "grpc", "containerPort": 9443}]},
    ]});
    let ready = json!([{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}]);
    let status = json!({"podIP": "10.1.0.9", "conditions": ready});
    let seen = read(json!({"metadata": {"uid": "u"}, "spec": spec, "status": status})).unwrap();
    assert_eq!(seen.address, Ok(("10.1.0.9".parse().unwrap(), 9443)));

    let not_ready = json!({"podIP": "10.1.0.9", "conditions": [{"type": "Ready", "status": "False"}]});
    let leaving = json!({"deletionTimestamp": "2026-11-24T12:00:00Z"});
    assert_eq!(read(json!({"spec": spec, "status": not_ready})), None);
    assert_eq!(read(json!({"spec": spec, "status": {"podIP": "10.1.0.9"}})), None);
    assert_eq!(read(json!({"spec": spec})), None);
    assert_eq!(read(json!({"metadata": leaving, "spec": spec, "status": status})), None);

    // These count, and nobody can say what they run.
    let nowhere = json!({"conditions": ready});
    assert!(read(json!({"spec": spec, "status": nowhere})).unwrap().address.unwrap_err().contains("address"));
    let portless = json!({"containers": [{"name": "verdict"}]});
    assert!(read(json!({"spec": portless, "status": status})).unwrap().address.unwrap_err().contains("grpc"));
}

#[test]
fn a_config_map_gives_its_authority_or_nothing() {
    let read = |object: Value| authority(serde_json::from_value(object).unwrap());
    assert_eq!(read(json!({"data": {"ca.crt": "PEM", "other": "x"}})), Some("PEM".to_owned()));
    assert_eq!(read(json!({"data": {"other": "x"}})), None);
    assert_eq!(read(json!({})), None);
}

#[test]
fn of_authorities_that_are_too_large_only_so_much_is_kept_that_they_are_seen_to_be() {
    let kept = |text: &str| {
        authority(ConfigMap {
            data: Some([("ca.crt".to_owned(), text.to_owned())].into()),
            ..ConfigMap::default()
        })
    };
    assert_eq!(authority(ConfigMap::default()), None);
    let most = "x".repeat(MAX_AUTHORITY);
    assert_eq!(kept(&most).as_deref(), Some(&*most));
    // Not within a character.
    for text in ["x".repeat(1 << 20), "ä".repeat(1 << 19)] {
        let length = kept(&text).unwrap().len();
        assert!((MAX_AUTHORITY + 1..MAX_AUTHORITY + 4).contains(&length), "{length}");
    }
}
