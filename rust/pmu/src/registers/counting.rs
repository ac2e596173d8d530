//! What counts (`CountPMUEvents`, J1.3), what an overflow means for the counter above, and when the interrupt
//! line is high (`CheckPMUOverflowCondition`, J1.3).

use super::{BIT31, CPU_CYCLES, CYCLE, INST_RETIRED, INSTRUCTION, Registers, ones};
use crate::feature::{PMUV3P1, PMUV3P5, PMUV3P7};
use crate::field::{mdcr_el2, pmcr, pmevtyper};

impl Registers {
    /// Counters that count at an exception level: enabled, not prohibited, not filtered, not frozen.
    #[must_use]
    pub fn counting(&self, el: u8) -> u64 {
        let mdcr = self.controls.mdcr_el2;
        let second = self.second_range();
        let first = self.implemented() & !second;
        let gated = (if self.pmcr & pmcr::E != 0 { first } else { 0 })
            | (if mdcr & mdcr_el2::HPME != 0 { second } else { 0 });
        let enabled = self.pmcnten & gated;

        let mut stopped = 0;
        if el == 2 && self.features.has(PMUV3P1) && mdcr & mdcr_el2::HPMD != 0 {
            stopped |= first;
        }
        stopped |= self.frozen(first, second);
        if self.pmcr & pmcr::DP == 0 {
            stopped &= !BIT31;
        }
        if el == 2 && self.features.has(PMUV3P5) && mdcr & mdcr_el2::HCCD != 0 {
            stopped |= BIT31;
        }
        enabled & !stopped & !self.filtered[usize::from(el)]
    }

    fn frozen(&self, first: u64, second: u64) -> u64 {
        let mut frozen = 0;
        if self.features.has(PMUV3P7) && self.pmovs != 0 {
            let freezing = if self.features.choices.freeze_on_cycle_counter { first } else { first & !BIT31 };
            if self.pmcr & pmcr::FZO != 0 && self.pmovs & freezing != 0 {
                frozen |= first;
            }
            if self.controls.mdcr_el2 & mdcr_el2::HPMFZO != 0 && self.pmovs & second != 0 {
                frozen |= second;
            }
        }
        frozen
    }

    /// Freezing is on for some range, so that an overflow may stop counters.
    #[inline]
    #[must_use]
    pub fn freezes(&self) -> bool {
        self.pmcr & pmcr::FZO != 0 || self.controls.mdcr_el2 & mdcr_el2::HPMFZO != 0
    }

    /// Level of the interrupt line.
    #[inline]
    #[must_use]
    pub fn interrupt(&self) -> bool {
        let asserted = self.pmovs & self.pminten;
        if asserted == 0 {
            return false;
        }
        let second = self.second_range();
        (self.pmcr & pmcr::E != 0 && asserted & !second != 0)
            || (self.controls.mdcr_el2 & mdcr_el2::HPME != 0 && asserted & second != 0)
    }

    /// Event counters of which an overflow is an event for the next one.
    #[inline]
    #[must_use]
    pub fn chaining(&self) -> u64 {
        self.chaining
    }

    /// An overflow of counter `n` is an event for counter `n + 1`.
    #[inline]
    #[must_use]
    pub fn chains(&self, n: usize) -> bool {
        self.chaining >> n & 1 != 0
    }

    /// An overflow of counter `n` changes something: its flag is clear, or it chains.
    #[inline]
    #[must_use]
    pub fn overflow_matters(&self, n: usize) -> bool {
        (!self.pmovs | self.chaining) >> n & 1 != 0
    }

    pub(super) fn update_chaining(&mut self) {
        const EVEN: u64 = 0x5555_5555;
        let below = EVEN & (self.chain_events & ones(self.features.counters)) >> 1;
        let crosses = if self.features.choices.chain_across_ranges { 0 } else { 1 << self.hpmn() >> 1 };
        self.chaining = below & !self.long() & !crosses;
    }

    /// Counters `n` and `n + 1` are in different ranges, so that it is CONSTRAINED UNPREDICTABLE
    /// whether an overflow chains.
    #[must_use]
    pub fn chain_crosses_ranges(&self, n: usize) -> bool {
        n + 1 == usize::from(self.hpmn())
    }

    /// What event counter `n` counts in a cycle in which its event happens `value` times
    /// (`PMUCountValue`, J1.3; `FEAT_PMUv3_TH`).
    #[must_use]
    pub fn count_value(&self, n: usize, value: u64) -> u64 {
        let filter = self.filter[n];
        let threshold = (filter & pmevtyper::TH) >> pmevtyper::TH.trailing_zeros();
        let control = (filter & pmevtyper::TC) >> pmevtyper::TC.trailing_zeros();
        if threshold == 0 && control == 0 {
            return value;
        }
        let met = match control >> 1 {
            0 => value != threshold,
            1 => value == threshold,
            2 => value >= threshold,
            _ => value < threshold,
        };
        match (met, control & 1) {
            (false, _) => 0,
            (true, 0) => value,
            (true, _) => 1,
        }
    }

    /// Counter `n` has its threshold function enabled.
    #[inline]
    #[must_use]
    pub fn thresholded(&self, n: usize) -> bool {
        self.filter[n] & (pmevtyper::TH | pmevtyper::TC) != 0
    }

    /// The event counters that are programmed to count CHAIN.
    #[inline]
    #[must_use]
    pub fn chain_events(&self) -> u64 {
        self.chain_events
    }

    /// The event that counter `n` is programmed to count.
    #[inline]
    #[must_use]
    pub fn event(&self, n: usize) -> u16 {
        match n {
            CYCLE => CPU_CYCLES,
            INSTRUCTION => INST_RETIRED,
            _ => (self.filter[n] & pmevtyper::EVT_COUNT) as u16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::CHAIN;
    use super::*;
    use crate::feature::{Features, PMUV3P4};

    fn registers(pmuver: u8, counters: u8) -> Registers {
        Registers::new(Features { pmuver, counters, icntr: true, ..Features::default() })
    }

    #[test]
    fn hpmd_prohibits_the_first_range_at_el2_and_dp_decides_for_the_cycle_counter() {
        let mut registers = registers(PMUV3P4, 2);
        registers.write_mdcr_el2(1 | mdcr_el2::HPME | mdcr_el2::HPMD);
        registers.pmcnten = registers.implemented();
        (0..2).chain([CYCLE, INSTRUCTION]).for_each(|n| registers.write_filter(n, pmevtyper::NSH));
        registers.write_pmcr(pmcr::E);
        assert_eq!(registers.counting(2), 0b10 | BIT31);
        registers.write_pmcr(pmcr::E | pmcr::DP);
        assert_eq!(registers.counting(2), 0b10);
        assert_eq!(registers.counting(1), registers.implemented());
    }

    #[test]
    fn the_cycle_counter_s_flag_freezes_if_so_chosen() {
        let with = |freeze_on_cycle_counter| {
            let mut features = Features { pmuver: PMUV3P7, counters: 1, ..Features::default() };
            features.choices.freeze_on_cycle_counter = freeze_on_cycle_counter;
            let mut registers = Registers::new(features);
            registers.pmcnten = 1;
            registers.pmovs = BIT31;
            registers.write_pmcr(pmcr::E | pmcr::FZO);
            registers.counting(1)
        };
        assert_eq!([with(false), with(true)], [1, 0]);
    }

    #[test]
    fn an_even_counter_of_32_bits_chains_to_the_next_across_ranges_if_so_chosen() {
        let chaining = |across: bool, counters: u8, hpmn: u64, lp: u64| {
            let mut features = Features { counters, ..Features::default() };
            features.choices.chain_across_ranges = across;
            let mut registers = Registers::new(features);
            (0..6).for_each(|n| registers.write_filter(n, u64::from(CHAIN)));
            registers.write_mdcr_el2(hpmn);
            registers.write_pmcr(lp);
            registers.chaining()
        };
        assert_eq!(chaining(true, 6, 3, 0), 0b1_0101);
        assert_eq!(chaining(false, 6, 3, 0), 0b1_0001);
        assert_eq!(chaining(false, 6, 2, 0), 0b1_0101, "the ranges part between pairs");
        assert_eq!(chaining(true, 5, 5, 0), 0b101, "counter 5 is not implemented");
        assert_eq!(chaining(true, 6, 3, pmcr::LP), 0b1_0000, "64 bits in the first range");
    }

    #[test]
    fn an_overflow_matters_if_its_flag_is_clear_or_it_chains() {
        let mut registers = registers(PMUV3P4, 4);
        registers.write_filter(3, u64::from(CHAIN));
        registers.pmovs = 0b1110;
        assert_eq!([0, 1, 2, 3].map(|n| registers.overflow_matters(n)), [true, false, true, false]);
    }

    #[test]
    fn a_threshold_compares_and_counts_as_tc_says() {
        let mut registers = Registers::new(Features { th: true, ..Features::default() });
        let mut counted = |control: u64, values: [u64; 3]| {
            registers.write_filter(0, control << pmevtyper::TC.trailing_zeros() | 2 << 32);
            values.map(|value| registers.count_value(0, value))
        };
        let values = [1, 2, 3];
        let not_equal = counted(0b000, values);
        assert_eq!(not_equal, [1, 0, 3]);
        assert_eq!(counted(0b010, values), [0, 2, 0]);
        assert_eq!(counted(0b100, values), [0, 2, 3]);
        assert_eq!(counted(0b110, values), [1, 0, 0]);
        assert_eq!(counted(0b101, values), [0, 1, 1]);
    }
}
