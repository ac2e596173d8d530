//! The judge on the smallest runs that show something, put together by hand.

mod board;
mod chained;
mod effects;
mod mutants;
mod order;
mod raised;
mod unknown;
