//! What the judge has found, as JSON.

use judge::counted::Counted;
use judge::finding::{Findings, Party, Seen, Violation};
use judge::owner::Owned;
use serde_json::{Value, json};

fn party(party: Party) -> String {
    match party {
        Party::Guest(context) => format!("vm:{context}"),
        Party::Host => "host".to_owned(),
        Party::Kvm => "kvm".to_owned(),
        Party::Nobody => "nobody".to_owned(),
    }
}

fn seen(seen: &Seen) -> Value {
    json!({
        "cpu": seen.cpu, "cycle": seen.cycle, "el": seen.el, "party": party(seen.party),
        "what": seen.did.name(), "a": seen.a, "b": seen.b,
    })
}

fn owned(owned: &Owned) -> Value {
    json!({"counter": owned.counter, "party": party(owned.party), "since": owned.since})
}

fn counted(counted: &Counted) -> Value {
    json!({
        "party": party(counted.party), "cycles": counted.cycles, "since": counted.since,
        "after": counted.after.map(|of| json!({
            "what": if of.put { "vcpu_put" } else { "vcpu_load" },
            "party": party(Party::Guest(of.context)), "cycle": of.cycle,
        })),
    })
}

fn violation(found: &Violation) -> Value {
    json!({
        "invariant": format!("I{}", found.invariant as u8),
        "kind": found.kind.name(),
        "cpu": found.cpu,
        "cycle": found.cycle,
        "register": found.register,
        "counter": found.counter,
        "victim": party(found.victim),
        "other": party(found.other),
        "expected": found.expected,
        "actual": found.actual,
        "window": found.window.map(|window| judge::window::WINDOWS[window as usize].name),
        "since": found.since,
        "owned": found.owned.iter().map(owned).collect::<Vec<_>>(),
        "counted": found.counted.iter().map(counted).collect::<Vec<_>>(),
        "times": found.times,
        "before": found.before.iter().map(seen).collect::<Vec<_>>(),
    })
}

/// All of it.
pub fn json(findings: &Findings) -> Value {
    let premises =
        findings.premises().iter().enumerate().map(|(i, &times)| (format!("I{}", i + 1), times.into()));
    let windows =
        findings.windows().map(|(name, uses, edge)| (name.to_owned(), json!({"uses": uses, "edge": edge})));
    json!({
        "violations": findings.violations().iter().map(violation).collect::<Vec<_>>(),
        "premises": Value::Object(premises.collect()),
        "windows": Value::Object(windows.collect()),
    })
}
