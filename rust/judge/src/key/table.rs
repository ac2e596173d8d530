//! What of each struct of the machine's and the judge's state is in the key, as data: which futures it can change.

use How::{Classed, In, Out};

/// How a field is in the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// As it is.
    In,
    /// Not at all.
    Out,
    /// Not as it is: what of it matters is put in by [`super::classes`].
    Classed,
}

/// A field, how it is in the key, and why.
pub(super) type Row = (&'static str, How, &'static str);

/// The struct's name and its fields, in the order in which they are declared.
pub(super) type Fields = (&'static str, &'static [Row]);

const CONSTANT: &str = "the same in all states of an experiment";
const FOLLOWS: &str = "follows from the registers, what runs and the counters' values";
const CLOCK: &str = "a time: what is still to come by it is classed";
const TALLY: &str = "a sum of what has been, which nobody decides by";
const ACCESS: &str = "decides what accesses do";
const TOLD: &str = "tells of a violation when it is found, and decides none";
const JUDGED: &str = "a later verdict depends on it";

/// Structs without named fields that are not in the key: what a recorder has kept is what has been.
pub(super) const OUT: &[&str] = &["Recorder"];

/// Every struct that the walk comes to.
pub(super) const TABLE: &[Fields] = &[
    (
        "Machine",
        &[
            ("cpus", In, "what the registers hold, and who runs"),
            ("implemented", Out, CONSTANT),
            (
                "world",
                Out,
                "rates are constant, truth is a tally: an event's is compared with what it has counted",
            ),
            ("contexts", Out, CONSTANT),
            ("costs", Out, CONSTANT),
            ("log", Out, "what has been"),
            ("traps", Out, TALLY),
            ("bursts", Out, TALLY),
            ("observer", In, "the judge"),
        ],
    ),
    (
        "Cpu",
        &[
            ("id", Out, CONSTANT),
            ("registers", In, "what EL2 sees"),
            ("counters", Classed, "distance to the wrap, and what the judge's ideal of the owner has less"),
            ("due", Out, FOLLOWS),
            ("thresholds", Out, "follow from the types and rates; what they have counted is in the values"),
            ("tallied", Out, FOLLOWS),
            ("now", Out, CLOCK),
            ("deadline", Out, "the pCPU's own, which kvm's part of the key has"),
            ("running", In, "who runs at which exception level"),
            ("origin", Out, CLOCK),
            ("counting", In, "what counts now: frozen or not"),
            ("live", Out, FOLLOWS),
            ("thresholded", Out, FOLLOWS),
            ("exact", Out, "how closely the next overflow has been looked for"),
            ("next_due", Out, FOLLOWS),
            ("line", In, "the interrupt line"),
            ("raised", Classed, "whether its level has been late"),
            ("arrives", Classed, "how long the level is under way still"),
            ("interrupt", In, "it can be taken"),
            ("active", In, "it has been acknowledged"),
            ("class_cycles", Out, TALLY),
            ("idle_cycles", Out, TALLY),
            ("accounted", Out, CLOCK),
            ("accounts", Out, "bills, and to whom the next one goes"),
            ("cputime", Out, "bills"),
            ("accesses", Out, TALLY),
            ("divider", In, "0 but with PMCR_EL0.D: the cycles until PMCCNTR_EL0's next increment"),
            ("overflows", Out, TALLY),
            ("choices", Out, TALLY),
        ],
    ),
    (
        "Running",
        &[
            ("context", In, "who"),
            ("tally", Out, "follows from context and level"),
            ("el", In, "at which level"),
            ("guest", Out, "follows from the context"),
            ("class", Out, "follows from context and level"),
        ],
    ),
    (
        "Registers",
        &[
            ("features", In, "an ideal PMU's change"),
            ("pmcr", In, "PMCR_EL0"),
            ("pmcnten", In, "PMCNTENSET_EL0"),
            ("pminten", In, "PMINTENSET_EL1"),
            ("pmovs", In, "PMOVSSET_EL0"),
            ("filter", In, "the types"),
            ("pmecr", In, "PMECR_EL1"),
            ("controls", In, ACCESS),
            ("filtered", Out, FOLLOWS),
            ("hpmn", Out, FOLLOWS),
            ("second_range", Out, FOLLOWS),
            ("long", Out, FOLLOWS),
            ("chain_events", Out, FOLLOWS),
            ("chaining", Out, FOLLOWS),
        ],
    ),
    (
        "Features",
        &[
            ("counters", In, "a guest's, which its VMM sets"),
            ("pmuver", Out, CONSTANT),
            ("fgt", Out, CONSTANT),
            ("hpmn0", Out, CONSTANT),
            ("icntr", Out, CONSTANT),
            ("pmccntr_in_wfi", In, "of a guest's ideal, that of the CPU that it was on last"),
            ("th", Out, CONSTANT),
            ("mtpmu", Out, CONSTANT),
            ("ss", Out, CONSTANT),
            ("el3", Out, CONSTANT),
            ("sel2", Out, CONSTANT),
            ("aarch32", Out, CONSTANT),
            ("vhe", Out, CONSTANT),
            ("pmcr_id", Out, CONSTANT),
            ("pmceid0", Out, CONSTANT),
            ("pmceid1", Out, CONSTANT),
            ("pmmir", Out, CONSTANT),
            ("pmi_delay", Out, CONSTANT),
            ("choices", Out, CONSTANT),
        ],
    ),
    (
        "Controls",
        &[
            ("pmuserenr", In, ACCESS),
            ("pmuacr", In, ACCESS),
            ("sel", In, ACCESS),
            ("mdcr_el2", In, "HPMN, HPME, HLP, HPMD and the traps"),
            ("hcr_el2", In, "E2H, TGE"),
            ("hdfgrtr", In, ACCESS),
            ("hdfgwtr", In, ACCESS),
            ("hdfgrtr2", In, ACCESS),
            ("hdfgwtr2", In, ACCESS),
            ("mdcr_el3", In, ACCESS),
        ],
    ),
    (
        "Judge",
        &[
            ("hosts", In, JUDGED),
            ("guests", In, JUDGED),
            ("by_context", Out, CONSTANT),
            ("events", In, JUDGED),
            ("findings", Out, "what was found is told once; nothing is judged by it"),
            ("fault", In, "nothing is judged any more"),
            ("from_cpu", In, JUDGED),
        ],
    ),
    (
        "Host",
        &[
            ("ideal", In, JUDGED),
            ("loaded", In, JUDGED),
            ("owners", In, JUDGED),
            ("counted", Out, TOLD),
            ("changed", In, "whose fault a difference is, and by that of which invariant"),
            ("swap", In, "of a vCPU preempted amid one, whose state is no data: none else"),
            ("starts_range", In, JUDGED),
            ("in_a_row", Out, "up to 10,000 are allowed"),
            ("selected", Classed, "whether a write of PMSELR_EL0 is to be synchronised"),
            ("unsynchronised", In, "whether what the driver writes next comes too early"),
            ("asleep", In, "who is to be woken"),
            ("overflows", Out, "how many have been seen: all"),
            ("of_registers", In, JUDGED),
        ],
    ),
    ("Owners", &[("now", In, JUDGED), ("range", Out, TOLD), ("log", Out, TOLD)]),
    ("Change", &[("counters", In, JUDGED), ("by", In, JUDGED), ("cycle", Out, TOLD)]),
    (
        "Unsynchronised",
        &[
            ("disabled", In, JUDGED),
            ("silenced", In, JUDGED),
            ("configured", In, JUDGED),
            ("enabled", In, JUDGED),
            ("starting", In, JUDGED),
        ],
    ),
    ("Swap", &[("before", In, JUDGED), ("seen", In, JUDGED)]),
    (
        "Seen",
        &[("place", In, JUDGED), ("cycle", Out, TOLD), ("expected", In, JUDGED), ("actual", In, JUDGED)],
    ),
    (
        "Guest",
        &[
            ("context", Out, CONSTANT),
            ("ideal", In, JUDGED),
            ("denied", In, JUDGED),
            ("tally", Out, "follows from the context"),
            ("events", In, JUDGED),
            ("counted", Out, TOLD),
            ("counted_before", Out, TOLD),
            ("effects", In, JUDGED),
            ("known", In, JUDGED),
            ("written", In, JUDGED),
            ("refilter", In, JUDGED),
            ("trapped", In, JUDGED),
            ("up_to", Out, CLOCK),
            ("polled", In, JUDGED),
            ("fresh", In, JUDGED),
            ("leaving", In, JUDGED),
            ("loaded", In, JUDGED),
            ("last_on", In, "whose interrupt one without a condition is"),
            ("since", Out, "follows from when its flags were raised"),
            ("raised", Classed, "whether their interrupts have been late"),
            ("in_a_row", Out, "up to 10,000 are allowed"),
            ("masked", In, JUDGED),
        ],
    ),
    (
        "Effects",
        &[("changed", Out, "how often a premise was met"), ("open", In, JUDGED), ("since", Out, TOLD)],
    ),
    (
        "Known",
        &[
            ("sure", In, JUDGED),
            ("adopted", In, JUDGED),
            ("reasons", In, JUDGED),
            ("long_cycles", In, JUDGED),
        ],
    ),
    (
        "Written",
        &[
            ("types", In, JUDGED),
            ("pmcr", In, JUDGED),
            ("select", In, JUDGED),
            ("userenr", In, JUDGED),
            ("beyond", In, JUDGED),
            ("user_pmcr", In, JUDGED),
        ],
    ),
    (
        "Trapped",
        &[
            ("register", In, JUDGED),
            ("write", In, JUDGED),
            ("value", In, JUDGED),
            ("el", In, JUDGED),
            ("on_cpu", In, JUDGED),
        ],
    ),
    ("Events", &[("open", In, "in the order of their ids, which are not in it"), ("cpus", In, JUDGED)]),
    (
        "OnCpu",
        &[
            ("events", Classed, "ids, by their rank among those that are open"),
            ("e", In, JUDGED),
            ("started", In, JUDGED),
            ("counting", In, JUDGED),
            ("astray", In, JUDGED),
            ("turn", Out, "a tally of who ran"),
            ("full", Classed, "whether it is this turn"),
            ("put", In, JUDGED),
            ("others", In, JUDGED),
            ("rescheduled", In, JUDGED),
            ("reading", Out, "written anew by each read, before it is looked at"),
        ],
    ),
    (
        "Event",
        &[
            ("number", In, JUDGED),
            ("attributes", In, JUDGED),
            ("scope", Out, "follows from the attributes"),
            ("vcpu", Out, "follows from whose it is"),
            ("leader", Classed, "an id, by its rank"),
            ("enabled", In, JUDGED),
            ("error", In, JUDGED),
            ("home", In, JUDGED),
            ("counts_for", In, JUDGED),
            ("on", In, JUDGED),
            ("counter", Classed, "that it is on, not that it was"),
            ("counted", Classed, "what perf has of it more"),
            ("from", Classed, "likewise; and whether it runs"),
            ("astray", Classed, "what is tolerated of it"),
            ("astray_from", Classed, "likewise"),
            ("read", Classed, "of an event that is off: what it has counted since is read no more"),
            ("read_at", Out, "written anew by each read of its counter"),
            ("truth", Out, "kept to save the time of asking again"),
            ("changed", In, JUDGED),
            ("times", Classed, "by how much perf's have grown apart since"),
            ("had", In, JUDGED),
            ("waits", In, JUDGED),
            ("fitted", In, JUDGED),
            ("unclear", In, JUDGED),
            ("steady", In, JUDGED),
            ("off_since", Out, TOLD),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The fields of each struct that is declared in a directory's sources, in order, but for those that are not saved.
    fn declared(directory: &Path, found: &mut Vec<(String, Vec<String>)>) {
        for entry in std::fs::read_dir(directory).expect("sources").map(|entry| entry.expect("one").path()) {
            if entry.is_dir() {
                declared(&entry, found);
                continue;
            }
            let source = std::fs::read_to_string(entry).expect("text");
            let mut lines = source.lines().map(str::trim_start);
            while let Some(line) = lines.next() {
                let Some((_, name)) = line.split_once("struct ").filter(|_| line.ends_with('{')) else {
                    continue;
                };
                let name = name.trim_end_matches('{').trim().split('<').next().unwrap_or_default();
                let mut fields = Vec::new();
                let mut kept = true;
                for line in lines.by_ref().take_while(|line| *line != "}") {
                    let field = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
                    match field.split_once(": ") {
                        _ if line.starts_with("//") => {}
                        _ if line.starts_with("#[") => kept &= !line.contains("serde(skip)"),
                        Some((field, _)) => {
                            fields.extend(kept.then(|| field.to_owned()));
                            kept = true;
                        }
                        None => {}
                    }
                }
                found.push((name.to_owned(), fields));
            }
        }
    }

    #[test]
    fn the_table_names_the_fields_of_its_structs_each_once_and_no_others() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        declared(&here.join("src"), &mut found);
        declared(&here.join("../pmu/src"), &mut found);
        for (name, rows) in TABLE {
            let fields: Vec<_> = rows.iter().map(|row| row.0.to_owned()).collect();
            let of_name: Vec<_> = found.iter().filter(|one| one.0 == *name).collect();
            assert!(of_name.iter().any(|one| one.1 == fields), "{name}: {of_name:?}");
        }
        let names: BTreeSet<_> = TABLE.iter().map(|of| of.0).collect();
        assert_eq!(names.len(), TABLE.len(), "each struct once");
    }

    #[test]
    fn every_row_has_a_reason() {
        assert!(TABLE.iter().flat_map(|of| of.1).all(|row| !row.2.is_empty()));
    }
}
