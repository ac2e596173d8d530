//! The walk over state by its `Serialize`: of each struct the fields that the table has in.

use serde::ser::{self, Serialize};

use super::Form;
use super::table::{Fields, How, OUT, Row, TABLE};

/// A field that the table does not name, or a struct of which it names none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unnamed(pub(super) String);

impl std::fmt::Display for Unnamed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the table of the key does not name {}", self.0)
    }
}

impl std::error::Error for Unnamed {}

impl ser::Error for Unnamed {
    fn custom<T: std::fmt::Display>(what: T) -> Self {
        Self(what.to_string())
    }
}

type Done = Result<(), Unnamed>;

/// Puts what it comes to into a form.
pub(super) struct Walk<'a> {
    pub(super) form: &'a mut Form,
}

/// A struct's fields, of which those before `next` are done.
pub(super) struct Struct<'a, 'b> {
    walk: &'a mut Walk<'b>,
    of: &'static Fields,
    next: usize,
}

impl Struct<'_, '_> {
    fn how(&mut self, field: &str) -> Result<How, Unnamed> {
        let rows: &[Row] = self.of.1;
        let is = |at: usize| rows.get(at).is_some_and(|row| row.0 == field);
        let at = if is(self.next) { Some(self.next) } else { (0..rows.len()).find(|&at| is(at)) };
        let at = at.ok_or_else(|| Unnamed(format!("{}.{field}", self.of.0)))?;
        self.next = at + 1;
        Ok(rows[at].1)
    }
}

impl ser::SerializeStruct for Struct<'_, '_> {
    type Ok = ();
    type Error = Unnamed;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Done {
        if self.how(key)? == How::In {
            self.walk.form.enter(key);
            value.serialize(&mut *self.walk)?;
            self.walk.form.leave();
        }
        Ok(())
    }

    fn end(self) -> Done {
        Ok(())
    }
}

macro_rules! words {
    ($($method:ident: $of:ty),*) => {
        $(fn $method(self, value: $of) -> Done {
            self.form.put(u64::from(value));
            Ok(())
        })*
    };
}

macro_rules! elements {
    ($($of:ident: $method:ident),*) => {
        $(impl ser::$of for &mut Walk<'_> {
            type Ok = ();
            type Error = Unnamed;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
                value.serialize(&mut **self)
            }

            fn end(self) -> Done {
                Ok(())
            }
        })*
    };
}

elements! {
    SerializeSeq: serialize_element, SerializeTuple: serialize_element, SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field
}

impl ser::SerializeMap for &mut Walk<'_> {
    type Ok = ();
    type Error = Unnamed;

    /// Keys are ids, and tell no more than the order.
    fn serialize_key<T: Serialize + ?Sized>(&mut self, _: &T) -> Done {
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        value.serialize(&mut **self)
    }

    fn end(self) -> Done {
        Ok(())
    }
}

impl<'a, 'b> ser::Serializer for &'a mut Walk<'b> {
    type Ok = ();
    type Error = Unnamed;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Struct<'a, 'b>;
    type SerializeStructVariant = ser::Impossible<(), Unnamed>;

    words! {
        serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_char: char
    }

    fn serialize_bool(self, value: bool) -> Done {
        self.serialize_u8(value.into())
    }

    fn serialize_u8(self, value: u8) -> Done {
        self.form.put_small(value);
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Done {
        self.form.put(value as u64);
        self.form.put((value >> 64) as u64);
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Done {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Done {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Done {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Done {
        self.serialize_u64(value as u64)
    }

    fn serialize_f32(self, value: f32) -> Done {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Done {
        self.serialize_u64(value.to_bits())
    }

    fn serialize_str(self, value: &str) -> Done {
        self.serialize_bytes(value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Done {
        self.form.put_bytes(value);
        Ok(())
    }

    fn serialize_none(self) -> Done {
        self.serialize_u8(0)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Done {
        self.form.put_small(1);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Done {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Done {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Done {
        self.form.put_small(index as u8);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Done {
        if OUT.contains(&name) { Ok(()) } else { value.serialize(self) }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Done {
        self.form.put_small(index as u8);
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self, Unnamed> {
        self.form.put(length.unwrap_or(0) as u64);
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Unnamed> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Unnamed> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Unnamed> {
        self.form.put_small(index as u8);
        Ok(self)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Self, Unnamed> {
        self.serialize_seq(length)
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Struct<'a, 'b>, Unnamed> {
        let of = TABLE.iter().find(|of| of.0 == name).ok_or_else(|| Unnamed(name.to_owned()))?;
        Ok(Struct { walk: self, of, next: 0 })
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Unnamed> {
        Err(Unnamed(format!("{name}::{variant}")))
    }
}
