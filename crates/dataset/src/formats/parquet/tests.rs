//! Images as writers lay them out, read by many threads, with and without room for their pages.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use logitcask_philox::{Purpose, Stream};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::*;

const N: usize = 600;

/// The bytes of row `i`, of 0 to 4000: noise, so that nothing compresses, and every tenth is null.
fn image(i: usize) -> Option<Vec<u8>> {
    let mut noise = Stream::new(1, Purpose::Synthetic, [0, i as u64, 0]);
    let n = if i % 7 == 3 {
        0
    } else {
        noise.below(4000) as usize
    };
    (i % 10 != 9).then(|| (0..n).map(|_| noise.below(256) as u8).collect())
}

/// A table of `N` rows. Of every other null the struct is null, of the rest the bytes are.
fn write(path: &Path, group: usize, properties: WriterPropertiesBuilder) {
    let images: Vec<Option<Vec<u8>>> = (0..N).map(image).collect();
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter(images.iter().map(Option::as_ref)));
    let fields = Fields::from(vec![Field::new("bytes", DataType::Binary, true)]);
    let there = NullBuffer::from_iter((0..N).map(|i| i % 20 != 9));
    let images: ArrayRef = Arc::new(StructArray::new(fields.clone(), vec![bytes], Some(there)));
    let labels: ArrayRef = Arc::new(Int64Array::from_iter_values((0..N).map(|i| i as i64 % 10)));
    let schema = Arc::new(Schema::new(vec![
        Field::new("image", DataType::Struct(fields), true),
        Field::new("label", DataType::Int64, true),
    ]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![images, labels]).unwrap();
    let properties = properties.set_max_row_group_row_count(Some(group)).build();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn tables(path: &Path, cache: PageCache) -> Tables {
    let spec = DataSpec::new("parquet", path.parent().unwrap());
    let (tables, _) = read_tables(&spec, &[path.into()]).unwrap();
    Tables {
        cache,
        ..Tables::new(tables)
    }
}

fn check(tables: &Tables, index: usize, fetched: &mut Image) {
    match (tables.fetch(index as u32, fetched), image(index)) {
        (Ok(Fetched::Encoded), Some(expected)) => assert_eq!(fetched.encoded, expected, "{index}"),
        (Err(FetchError::Bad(ImageError::Null)), None) => {}
        (found, _) => panic!("row {index}: {found:?}"),
    }
}

/// Two threads that read two row groups used to seek under each other: valid files were refused, and now and then a
/// sample was given the image of another.
#[test]
fn sixteen_threads_get_each_sample_its_own_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.parquet");
    for group in [1, 4, 100] {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_data_page_row_count_limit(30)
            .set_write_batch_size(10);
        write(&path, group, properties);
        // With room for all pages, for one of them and for none.
        for limit in [1 << 30, 200_000, 0] {
            let tables = tables(&path, PageCache::new(limit));
            std::thread::scope(|scope| {
                for thread in 0..16 {
                    let tables = &tables;
                    scope.spawn(move || {
                        let mut fetched = Image::new();
                        for i in 0..2 * N {
                            // Half of them in order, half of them anywhere.
                            let index = if thread % 2 == 0 {
                                i
                            } else {
                                i * 7919 + thread * 37
                            };
                            check(tables, index % N, &mut fetched);
                        }
                    });
                }
            });
        }
    }
}

#[test]
fn images_are_read_by_themselves_where_their_pages_can_be_taken_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.parquet");
    let plain = || WriterProperties::builder().set_dictionary_enabled(false);
    let encoded = |encoding| {
        plain().set_column_encoding(
            ColumnPath::from(vec!["image".to_owned(), "bytes".to_owned()]),
            encoding,
        )
    };
    let zstd = Compression::ZSTD(Default::default());
    // Of itself version 2 writes deltas where there is no dictionary.
    let v2 = || {
        let plain = plain().set_encoding(Encoding::PLAIN);
        plain.set_writer_version(WriterVersion::PARQUET_2_0)
    };
    for (name, properties, apart) in [
        ("plain", plain(), true),
        ("plain, v2", v2(), true),
        ("Snappy", plain().set_compression(Compression::SNAPPY), true),
        (
            "Snappy, v2",
            v2().set_compression(Compression::SNAPPY),
            true,
        ),
        ("dictionary", WriterProperties::builder(), true),
        (
            "Snappy dictionary, then plain",
            WriterProperties::builder()
                .set_compression(Compression::SNAPPY)
                .set_dictionary_page_size_limit(200_000)
                .set_write_batch_size(50),
            true,
        ),
        ("zstd", plain().set_compression(zstd), false),
        (
            "delta lengths",
            encoded(Encoding::DELTA_LENGTH_BYTE_ARRAY),
            true,
        ),
        ("deltas", encoded(Encoding::DELTA_BYTE_ARRAY), false),
    ] {
        write(&path, 500, properties.set_data_page_size_limit(300_000));
        let mut tables = tables(&path, PageCache::default());
        let mut fetched = Image::new();
        for index in 0..N {
            check(&tables, index, &mut fetched);
        }
        let pages = tables
            .groups
            .iter()
            .flat_map(|group| &group.pages.get().unwrap().data);
        let found: Vec<bool> = pages
            .map(|page| page.places.get().unwrap().is_some())
            .collect();
        assert!(
            found.len() >= 2 && found.iter().all(|&found| found == apart),
            "{name}: {found:?}"
        );
        tables.cache = PageCache::new(0);
        for index in (0..N).rev() {
            check(&tables, index, &mut fetched);
        }
    }
}
