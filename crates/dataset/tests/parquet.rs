//! What Parquet files hold as images and labels, and what their classes are.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Float32Array, Float64Array,
    Int32Array, Int64Array, LargeBinaryArray, LargeStringArray, ListArray, RecordBatch,
    StringArray, StructArray, UInt8Array,
};
use arrow::datatypes::{DataType, Field, Schema};
use logitcask_dataset::*;

const SIZE: ImageSize = ImageSize {
    height: 2,
    width: 2,
    channels: 3,
};

fn picture(i: usize) -> Image {
    Image::from_pixels(
        SIZE,
        (0..SIZE.n_bytes())
            .map(|at| (at * 9 + i * 31) as u8)
            .collect(),
    )
}

fn encoded(n: usize) -> Vec<Vec<u8>> {
    (0..n).map(|i| png(&picture(i)).unwrap()).collect()
}

fn images(n: usize) -> ArrayRef {
    Arc::new(BinaryArray::from_iter_values(encoded(n)))
}

/// Writes two columns, and what the Hub's library would say of the classes.
fn write(path: &Path, image: ArrayRef, label: ArrayRef, class_names: &[&str]) {
    let fields = vec![
        Field::new("image", image.data_type().clone(), true),
        Field::new("label", label.data_type().clone(), true),
    ];
    let names = serde_json::json!({"info": {"features": {"label": {"names": class_names}}}});
    let metadata = match class_names {
        [] => HashMap::new(),
        _ => HashMap::from([("huggingface".to_owned(), names.to_string())]),
    };
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![image, label]).unwrap();
    let file = fs::File::create(path).unwrap();
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(file, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn labelled(path: &Path, label: ArrayRef, class_names: &[&str]) {
    write(path, images(label.len()), label, class_names);
}

fn integers(labels: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(labels.to_vec()))
}

fn strings(labels: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(labels.to_vec()))
}

/// The error and its causes, on one line.
fn refused(spec: &DataSpec, role: Role) -> String {
    let error = Dataset::open(spec, role).unwrap_err();
    let mut causes: Vec<String> = Vec::new();
    let mut next: Option<&dyn std::error::Error> = Some(&error);
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes.join(": ")
}

#[test]
fn labels_of_every_type_are_read_or_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let spec = DataSpec::new("parquet", folder.path());
    let animals = ["dog", "cat", "dog", "Zebra"];
    let keys = Int32Array::from(vec![2, 0, 2, 1]);
    let values: ArrayRef = strings(&["cat", "Zebra", "dog", "not there"]);
    let dictionary = arrow::array::DictionaryArray::new(keys, values);
    let named = ["Zebra", "cat", "dog"].as_slice();
    let cases: [(ArrayRef, &[u32], &[&str]); 8] = [
        (integers(&[0, 2, 1, 2]), &[0, 2, 1, 2], &[]),
        (Arc::new(UInt8Array::from(vec![0, 200])), &[0, 200], &[]),
        (Arc::new(Float64Array::from(vec![0.0, 3.0])), &[0, 3], &[]),
        (Arc::new(Float32Array::from(vec![1.0, 0.0])), &[1, 0], &[]),
        (
            Arc::new(BooleanArray::from(vec![true, false])),
            &[1, 0],
            &["false", "true"],
        ),
        (strings(&animals), &[2, 1, 2, 0], named),
        (
            Arc::new(LargeStringArray::from(animals.to_vec())),
            &[2, 1, 2, 0],
            named,
        ),
        (Arc::new(dictionary), &[2, 1, 2, 0], named),
    ];
    for (column, labels, names) in cases {
        let kind = column.data_type().clone();
        labelled(&folder.path().join("train.parquet"), column, &[]);
        let dataset = Dataset::open(&spec, Role::Train).unwrap();
        assert_eq!(dataset.labels(), labels, "{kind}");
        assert_eq!(dataset.class_names(), names, "{kind}");
    }
    let listed =
        ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>([Some([Some(1)])]);
    let cases: [(ArrayRef, &str); 7] = [
        (
            integers(&[0, -1]),
            "sample 1 (`train.parquet` row 1): the label is `-1`",
        ),
        (
            Arc::new(Int64Array::from(vec![Some(0), None])),
            "the label is null",
        ),
        (
            Arc::new(StringArray::from(vec![Some("a"), None])),
            "the label is null",
        ),
        (
            Arc::new(Float64Array::from(vec![0.0, 0.5])),
            "row 1): the label is `0.5`, which is no whole number",
        ),
        (
            Arc::new(Float64Array::from(vec![f64::NAN])),
            "the label is `NaN`, which is no whole number",
        ),
        (Arc::new(Float64Array::from(vec![1e300])), "out of range"),
        (
            Arc::new(listed),
            "one label a row, found `image`: Binary, `label`: List",
        ),
    ];
    for (column, expected) in cases {
        labelled(&folder.path().join("train.parquet"), column, &[]);
        let found = refused(&spec, Role::Train);
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn images_of_every_type_are_read_or_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.parquet");
    let spec = DataSpec::new("parquet", folder.path());
    let bytes = encoded(3);
    let in_struct = |bytes: ArrayRef| -> ArrayRef {
        let paths = strings(&["a", "b", "c"]);
        let field =
            |name, array: &ArrayRef| Arc::new(Field::new(name, array.data_type().clone(), true));
        Arc::new(StructArray::from(vec![
            (field("bytes", &bytes), bytes),
            (field("path", &paths), paths),
        ]))
    };
    let dictionary = || -> ArrayRef {
        let keys = Int32Array::from(vec![1, 2, 0]);
        let values = [&bytes[2], &bytes[0], &bytes[1]];
        let values = Arc::new(BinaryArray::from_iter_values(values));
        Arc::new(arrow::array::DictionaryArray::new(keys, values))
    };
    for column in [
        images(3),
        Arc::new(LargeBinaryArray::from_iter_values(&bytes)),
        Arc::new(BinaryViewArray::from_iter_values(&bytes)),
        dictionary(),
        in_struct(images(3)),
        in_struct(Arc::new(BinaryViewArray::from_iter_values(&bytes))),
        in_struct(dictionary()),
    ] {
        let kind = column.data_type().clone();
        write(&path, column, integers(&[0, 1, 2]), &[]);
        let dataset = Dataset::open(&spec, Role::Train).unwrap();
        let mut image = Image::new();
        for index in 0..3 {
            dataset.decode(index, &mut image).unwrap();
            assert_eq!(image, picture(index as usize), "{kind}");
        }
    }

    // Several images a row, and images that are text.
    let values = images(3);
    let offsets = arrow::buffer::OffsetBuffer::new(vec![0, 2, 3].into());
    let field = Arc::new(Field::new("item", DataType::Binary, true));
    let lists: ArrayRef = Arc::new(ListArray::new(field, offsets, values, None));
    for (column, found) in [
        (lists, "`image`: List"),
        (strings(&["x", "y"]), "`image`: Utf8"),
    ] {
        write(&path, column, integers(&[0, 1]), &[]);
        let error = refused(&spec, Role::Train);
        assert!(
            error.contains("has no image column") && error.contains(found),
            "{error}"
        );
    }

    // A row that names a file elsewhere holds no image, whatever the others do.
    let missing: ArrayRef = Arc::new(BinaryArray::from_iter([
        Some(&bytes[0]),
        None,
        Some(&bytes[2]),
    ]));
    write(&path, in_struct(missing), integers(&[0, 1, 2]), &[]);
    let error = Dataset::open(&spec, Role::Train)
        .unwrap()
        .decode(1, &mut Image::new())
        .unwrap_err();
    let is_null = matches!(&error, DatasetError::BadSample { place, source: ImageError::Null } if place == "sample 1 (`train.parquet` row 1)");
    assert!(is_null, "{error}");
}

#[test]
fn shards_agree_on_their_classes_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let spec = DataSpec::new("parquet", folder.path());
    let [first, second] =
        ["train-0.parquet", "train-1.parquet"].map(|name| folder.path().join(name));

    labelled(&first, integers(&[0, 1, 2]), &["ant", "bee", "cow"]);
    labelled(&second, integers(&[0, 1, 2]), &["cow", "ant", "bee"]);
    let dataset = Dataset::open(&spec, Role::Train).unwrap();
    assert_eq!(dataset.labels(), [0, 1, 2, 2, 0, 1]);
    assert_eq!(dataset.class_names(), ["ant", "bee", "cow"]);

    labelled(&second, integers(&[0, 3]), &["cow", "ant", "bee"]);
    let error = refused(&spec, Role::Train);
    assert!(
        error.contains("`train-1.parquet` row 1): label `3` is out of range, expected 0 to 2"),
        "{error}"
    );

    labelled(&second, integers(&[0, 1]), &["ant", "bee", "cat"]);
    let error = refused(&spec, Role::Train);
    assert!(
        error.contains("train-1.parquet` has other classes than")
            && error.contains("class 2, `cat`"),
        "{error}"
    );

    // Names that are the labels: the classes are those of all files.
    labelled(&first, strings(&["dog", "bee"]), &[]);
    labelled(&second, strings(&["ant", "dog"]), &[]);
    let dataset = Dataset::open(&spec, Role::Train).unwrap();
    assert_eq!(dataset.labels(), [2, 1, 0, 2]);
    assert_eq!(dataset.class_names(), ["ant", "bee", "dog"]);

    labelled(&second, integers(&[0, 1]), &[]);
    let error = refused(&spec, Role::Train);
    assert!(
        error.contains("its labels are integers, not strings"),
        "{error}"
    );
}

#[test]
fn an_evaluation_split_of_names_has_the_classes_of_the_train_split() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = DataSpec::new("parquet", folder.path());
    spec.eval = Some("test".into());
    labelled(
        &folder.path().join("train.parquet"),
        strings(&["dog", "ant", "bee"]),
        &[],
    );
    labelled(
        &folder.path().join("test.parquet"),
        strings(&["dog", "bee"]),
        &[],
    );
    let eval = Dataset::open(&spec, Role::Eval).unwrap();
    assert_eq!(eval.labels(), [2, 1]);
    assert_eq!(eval.class_names(), ["ant", "bee", "dog"]);
    assert_eq!(eval.n_classes(), 3);

    labelled(
        &folder.path().join("test.parquet"),
        strings(&["dog", "eel"]),
        &[],
    );
    let error = refused(&spec, Role::Eval);
    assert!(
        error.contains("classes of split `test`") && error.contains("`eel`"),
        "{error}"
    );
}
