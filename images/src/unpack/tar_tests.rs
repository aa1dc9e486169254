use super::*;
use ::tar::{EntryType, Header};
use proptest::prelude::*;

fn read_all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, UnpackError> {
    let mut reader = TarReader::new(bytes);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).map_err(UnpackError::Stream)?;
        all.push((entry, content));
    }
    Ok(all)
}

fn file(name: &str, content: &[u8]) -> (Header, Vec<u8>) {
    let mut header = Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_mode(0o4755);
    header.set_uid(1000);
    header.set_gid(100);
    header.set_mtime(1_600_000_000);
    header.set_size(content.len() as u64);
    header.set_cksum();
    (header, content.to_vec())
}

fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while body + length.to_string().len() != length {
        length = body + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn pax(records: &[(&str, &[u8])]) -> (Header, Vec<u8>) {
    let content = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect::<Vec<_>>();
    let (mut header, content) = file("pax", &content);
    header.set_entry_type(EntryType::XHeader);
    header.set_cksum();
    (header, content)
}

fn archive(members: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (header, content) in members {
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

#[test]
fn pax_values_may_hold_newlines_and_zeros() {
    let capability = [1, 0, 0, 2, b'\n', 0, 0, b'='];
    let bytes = archive(&[
        pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("mtime", b"1600000000.25"),
            ("path", b"a/very/long/name"),
            ("uid", b"3000000"),
        ]),
        file("short", b"hello"),
    ]);
    let all = read_all(&bytes).unwrap();
    let (entry, content) = &all[0];
    assert_eq!(entry.path, b"a/very/long/name");
    assert_eq!(entry.xattrs, [(b"security.capability".to_vec(), capability.to_vec())]);
    assert_eq!(entry.modified, Time { seconds: 1_600_000_000, nanos: 250_000_000 });
    assert_eq!((entry.mode, entry.uid, entry.gid), (0o4755, 3_000_000, 100));
    assert_eq!(content, b"hello");
}

#[test]
fn times_before_1970_are_understood() {
    assert_eq!(parse_time(b"-1.5"), Some(Time { seconds: -2, nanos: 500_000_000 }));
    assert_eq!(parse_time(b"12"), Some(Time { seconds: 12, nanos: 0 }));
    assert_eq!(parse_time(b"0.1234567899"), Some(Time { seconds: 0, nanos: 123_456_789 }));
    assert_eq!(parse_time(b"1.x"), None);
}

#[test]
fn archives_that_end_early_or_lie_are_refused() {
    let whole = archive(&[file("a", &[7; 1000])]);
    assert!(read_all(&whole[..100]).is_err());
    assert!(read_all(&whole[..BLOCK + 10]).is_err());
    let mut damaged = whole.clone();
    damaged[0] ^= 1;
    assert!(read_all(&damaged).unwrap_err().to_string().contains("checksum"));
    let (mut huge, _) = pax(&[]);
    huge.set_size(1 << 40);
    huge.set_cksum();
    assert!(read_all(huge.as_bytes()).unwrap_err().to_string().contains("1 MiB"));
    // The trailer may be missing: Go's reader, and so Docker, takes such an archive.
    assert_eq!(read_all(&whole[..whole.len() - 2 * BLOCK]).unwrap().len(), 1);
}

#[test]
fn the_last_members_padding_may_be_missing() {
    let whole = archive(&[file("a", b"first"), file("b", b"content")]);
    let end = 3 * BLOCK + 7;
    for length in [end, end + 1, 4 * BLOCK - 1, 4 * BLOCK] {
        let all = read_all(&whole[..length]).unwrap();
        assert_eq!(
            all.iter().map(|(_, content)| content.as_slice()).collect::<Vec<_>>(),
            [&b"first"[..], b"content"]
        );
    }
    for length in [end - 1, 3 * BLOCK + 1, 3 * BLOCK, 3 * BLOCK - 1] {
        // Content that nobody reads must be there as well.
        let mut reader = TarReader::new(&whole[..length]);
        let passed_over = std::iter::from_fn(|| reader.next_entry().transpose()).find_map(Result::err);
        assert!(passed_over.is_some() && read_all(&whole[..length]).is_err(), "{length}");
    }
}

#[test]
fn numbers_are_octal_or_binary() {
    let number = |bytes: [u8; 8]| {
        let mut block = [0; BLOCK];
        block[UID].copy_from_slice(&bytes);
        super::Header { block }.number(UID)
    };
    assert_eq!(number(*b"0001750\0"), Some(1000));
    assert_eq!(number(*b"  1750 \0"), Some(1000));
    assert_eq!(number([0; 8]), Some(0));
    assert_eq!(number([0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0]), Some(3_000_000));
    assert_eq!(number([0xff; 8]), Some(-1));
    assert_eq!(number(*b"0000009\0"), None);
    assert_eq!(number(*b"-000001\0"), None);
}

#[test]
fn extension_headers_are_limited_together() {
    let some = pax(&[("comment", &[b'x'; 600_000])]);
    let error = read_all(&archive(&[some.clone(), some, file("a", b"")])).unwrap_err();
    assert!(error.to_string().contains("1 MiB"), "{error}");
}

#[test]
fn bad_pax_records_are_refused() {
    for records in
        [&b"9999 a=b\n"[..], b"x", b"3 a\n", b"0 \n", b"-1 a=b\n", b"99999999999999999999999 a=b\n"]
    {
        assert!(Extensions::default().apply_pax(records).is_err(), "{records:?}");
    }
}

proptest! {
    #[test]
    fn reading_never_panics(seed in proptest::collection::vec((0usize..3000, any::<u8>()), 0..20), noise in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = read_all(&noise);
        let mut bytes = archive(&[pax(&[("path", b"some/name"), ("size", b"5")]), file("a", b"hello"), file("b", &[1; 700])]);
        for (at, byte) in seed {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let _ = read_all(&bytes);
        let _ = Extensions::default().apply_pax(&noise);
    }
}
