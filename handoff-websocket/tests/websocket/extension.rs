//! Offers of permessage-deflate and what is answered.

use handoff_websocket::{Agreement, negotiate};

fn agree(fields: &[&str]) -> Option<Agreement> {
    negotiate(fields.iter().map(|field| field.as_bytes()))
}

/// What follows the extension's name and both `no_context_takeover`.
#[track_caller]
fn assert_accepted(field: &str, bits: u8, rest: &str) {
    let agreement = agree(&[field]).expect("accepted");
    assert_eq!(agreement.server_window_bits(), bits);
    let always = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(agreement.to_field(), format!("{always}{rest}"));
}

#[track_caller]
fn assert_declined(field: &str) {
    assert_eq!(agree(&[field]), None);
}

#[test]
fn an_agreement_takes_two_bytes() {
    assert!(size_of::<Option<Agreement>>() <= 2);
}

#[test]
fn no_offer_is_no_agreement() {
    assert_eq!(agree(&[]), None);
    for field in ["", " ", ",", "permessage-bzip2", "x-webkit-deflate-frame", "permessage-deflat"] {
        assert_declined(field);
    }
}

#[test]
fn the_offers_of_the_rfc_are_accepted() {
    // RFC 7692 sections 7.1 and 7.1.3.
    assert_accepted("permessage-deflate", 15, "");
    assert_accepted("permessage-deflate; client_max_window_bits", 15, "");
    assert_accepted("permessage-deflate; server_no_context_takeover", 15, "");
    assert_accepted("permessage-deflate; client_no_context_takeover", 15, "");
    let limited = "permessage-deflate; client_max_window_bits; server_max_window_bits=10";
    assert_accepted(limited, 10, "; server_max_window_bits=10");
    assert_accepted(&format!("{limited}, permessage-deflate"), 10, "; server_max_window_bits=10");
    assert_accepted(&format!("permessage-deflate, {limited}"), 15, "");
}

#[test]
fn what_browsers_offer_is_accepted() {
    assert_accepted("permessage-deflate; client_max_window_bits", 15, "");
    assert_accepted("permessage-deflate", 15, "");
}

#[test]
fn a_limit_of_the_servers_window_is_kept_and_answered() {
    for bits in 9..=15 {
        let limit = format!("; server_max_window_bits={bits}");
        assert_accepted(&format!("permessage-deflate{limit}"), bits, &limit);
    }
}

#[test]
fn a_window_of_256_bytes_is_declined() {
    // zlib would use 512.
    assert_declined("permessage-deflate; server_max_window_bits=8");
    assert_accepted("permessage-deflate; server_max_window_bits=8, permessage-deflate", 15, "");
    // The client's own may be.
    assert_accepted("permessage-deflate; client_max_window_bits=8", 15, "");
}

#[test]
fn the_first_acceptable_offer_wins_in_any_field() {
    let fields = [
        "foo; bar=\"permessage-deflate, x\"",
        "permessage-deflate; unknown, foo",
        "permessage-deflate; server_max_window_bits=12",
        "permessage-deflate",
    ];
    assert_eq!(agree(&fields).map(Agreement::server_window_bits), Some(12));
}

#[test]
fn values_may_be_quoted() {
    let limit = "; server_max_window_bits=11";
    assert_accepted("permessage-deflate; server_max_window_bits=\"11\"", 11, limit);
    assert_accepted("permessage-deflate; server_max_window_bits=\"1\\1\"", 11, limit);
    assert_accepted("permessage-deflate ;\tserver_max_window_bits = \"11\" ,x", 11, limit);
    assert_accepted("x; y=\"\\\", permessage-deflate; z=\", permessage-deflate", 15, "");
    assert_declined("permessage-deflate; server_max_window_bits=\"11");
    assert_declined("permessage-deflate; server_max_window_bits=\"11\"x");
    assert_declined("permessage-deflate; server_max_window_bits=11\"");
    assert_declined("permessage-deflate; server_max_window_bits=\"11\\");
}

#[test]
fn an_offer_with_a_bad_parameter_is_declined() {
    for parameters in [
        "unknown",
        "",
        "server_no_context_takeover=",
        "server_no_context_takeover=1",
        "client_no_context_takeover=true",
        "server_max_window_bits",
        "server_max_window_bits=",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=09",
        "server_max_window_bits=+9",
        "server_max_window_bits=1 2",
        "server_max_window_bits=100",
        "client_max_window_bits=",
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "client_max_window_bits=010",
        "client_max_window_bits=x",
        "Server_No_Context_Takeover",
    ] {
        assert_declined(&format!("permessage-deflate; {parameters}"));
    }
}

#[test]
fn a_parameter_is_given_once() {
    for parameter in [
        "server_no_context_takeover",
        "client_no_context_takeover",
        "server_max_window_bits=10",
        "client_max_window_bits",
        "client_max_window_bits=10",
    ] {
        assert!(agree(&[&format!("permessage-deflate; {parameter}")]).is_some());
        assert_declined(&format!("permessage-deflate; {parameter}; {parameter}"));
    }
    assert_declined("permessage-deflate; client_max_window_bits; client_max_window_bits=10");
}
