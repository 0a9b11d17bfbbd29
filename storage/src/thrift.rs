//! Headers of Parquet pages: just enough of Thrift's compact protocol.
//!
//! Sources: parquet-format, `parquet.thrift` (`PageHeader`); Apache Thrift, "Thrift Compact protocol encoding".

/// What a reader wants to know of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PageHeader {
    pub is_dictionary: bool,
    /// Of the page's content, unpacked.
    pub bytes: usize,
    pub values: u32,
    /// By its number in `parquet.thrift`.
    pub encoding: i32,
    pub is_sorted: bool,
}

const DATA_PAGE: i64 = 0;
const DICTIONARY_PAGE: i64 = 2;

/// Structs inside of structs are not followed deeper than this.
const DEPTH_MAX: u32 = 8;

/// Types of fields.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const STRUCT: u8 = 12;

/// The header at the start of a page and its length; `None` when there is none, or one of a page that Trefoil does not
/// write (version 2, index).
pub fn page_header(bytes: &[u8]) -> Option<(PageHeader, usize)> {
    let mut reader = Reader { rest: bytes };
    let mut header = PageHeader::default();
    let (mut kind, mut size, mut described) = (None, None, None);
    let mut id = 0;
    while let Some(field_type) = reader.field(&mut id)? {
        match (id, field_type) {
            (1, 4..=6) => kind = Some(reader.integer()?),
            (2, 4..=6) => size = Some(reader.integer()?),
            // `DataPageHeader` and `DictionaryPageHeader` begin alike.
            (5 | 7, STRUCT) => {
                described = Some(if id == 5 { DATA_PAGE } else { DICTIONARY_PAGE });
                let mut id = 0;
                while let Some(field_type) = reader.field(&mut id)? {
                    match (id, field_type) {
                        (1, 4..=6) => header.values = u32::try_from(reader.integer()?).ok()?,
                        (2, 4..=6) => header.encoding = i32::try_from(reader.integer()?).ok()?,
                        (3, TRUE | FALSE) => header.is_sorted = field_type == TRUE,
                        _ => reader.skip(field_type, DEPTH_MAX)?,
                    }
                }
            }
            _ => reader.skip(field_type, DEPTH_MAX)?,
        }
    }
    if kind != described || kind.is_none() {
        return None;
    }
    header.is_dictionary = kind == Some(DICTIONARY_PAGE);
    // Pages hold at most 2 GiB.
    header.bytes = usize::try_from(i32::try_from(size?).ok()?).ok()?;
    Some((header, bytes.len() - reader.rest.len()))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// 16, 32 or 64 bits: zigzag.
    fn integer(&mut self) -> Option<i64> {
        self.varint().map(|zigzag| (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// Type of the next field, `Some(None)` at the end of the struct.
    ///
    /// * `id`: of the field before; becomes that of this one.
    fn field(&mut self, id: &mut i64) -> Option<Option<u8>> {
        let head = self.byte()?;
        if head == 0 {
            return Some(None);
        }
        *id = match head >> 4 {
            0 => self.integer()?,
            step => *id + i64::from(step),
        };
        Some(Some(head & 0x0f))
    }

    fn skip(&mut self, field_type: u8, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match field_type {
            TRUE | FALSE => {}
            BYTE => drop(self.byte()?),
            4..=6 => drop(self.varint()?),
            DOUBLE => self.rest = self.rest.get(8..)?,
            BINARY => {
                let bytes = usize::try_from(self.varint()?).ok()?;
                self.rest = self.rest.get(bytes..)?;
            }
            LIST | SET => {
                let head = self.byte()?;
                let items = match head >> 4 {
                    15 => self.varint()?,
                    few => u64::from(few),
                };
                for _ in 0..items {
                    match head & 0x0f {
                        // In lists each is a byte.
                        TRUE | FALSE => drop(self.byte()?),
                        item => self.skip(item, depth)?,
                    }
                }
            }
            STRUCT => {
                let mut id = 0;
                while let Some(field_type) = self.field(&mut id)? {
                    self.skip(field_type, depth)?;
                }
            }
            // Maps are in no page header.
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `PageHeader` of 300 values in 1,000 bytes, with a checksum and statistics to be passed over.
    const DATA: [u8; 32] = [
        0x15, 0x00, // 1: type, data page
        0x15, 0xd0, 0x0f, // 2: unpacked bytes, 1,000
        0x15, 0x90, 0x03, // 3: packed bytes
        0x15, 0x01, // 4: checksum, -1
        0x1c, // 5: data page header
        0x15, 0xd8, 0x04, // 1: values, 300
        0x15, 0x10, // 2: encoding, RLE_DICTIONARY
        0x15, 0x06, 0x15, 0x06, // 3, 4: encodings of levels
        0x1c, // 5: statistics
        0x18, 0x02, 0xff, 0xff, // 1: max
        0x26, 0x08, // 3: null count
        0x21, // 5: a truth value
        0x00, 0x00, // ends of both
        0x00, 0x77, // end, and a byte of content
    ];

    #[test]
    fn a_data_page_header_is_read_and_its_statistics_are_passed_over() {
        let header = PageHeader { bytes: 1000, values: 300, encoding: 8, ..Default::default() };
        assert_eq!(page_header(&DATA), Some((header, DATA.len() - 1)));
    }

    #[test]
    fn a_dictionary_page_header_is_read() {
        let bytes = [0x15, 0x04, 0x15, 0x20, 0x15, 0x18, 0x4c, 0x15, 0x04, 0x15, 0x00, 0x11, 0, 0];
        let header =
            PageHeader { is_dictionary: true, bytes: 16, values: 2, encoding: 0, is_sorted: true };
        assert_eq!(page_header(&bytes), Some((header, bytes.len())));
    }

    #[test]
    fn cuts_flips_and_other_pages_are_no_headers_and_end_nothing() {
        for cut in 0..DATA.len() - 1 {
            assert_eq!(page_header(&DATA[..cut]), None, "cut at {cut}");
        }
        for (at, bit) in (0..DATA.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bytes = DATA;
            bytes[at] ^= 1 << bit;
            let _ = page_header(&bytes);
        }
        let mut version_2 = DATA;
        version_2[1] = 0x06;
        assert_eq!(page_header(&version_2), None);
        let nested = [0x1c; 100];
        assert_eq!(page_header(&nested), None);
    }
}
