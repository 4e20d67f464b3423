//! Rows that hold every class, decoded side by side by the widest registers that the processor has.

use std::marker::PhantomData;

/// How a row that holds every class is decoded.
pub(crate) trait Dense {
    /// Decodes a row to one f32 per class. `head` and `body` are its bytes in the encoding's columns, the same one twice
    /// where there is one. It is compiled for each level of vector instructions, wherefore it must be `inline(always)`.
    fn row(head: &[u8], body: &[u8], logits: &mut [f32]);
}

/// Decodes rows side by side, each to its equal share of `logits`, by the widest registers that this processor has.
#[inline]
pub(crate) fn decode_rows<D: Dense, const N: usize>(
    columns: [[&[u8]; N]; 2],
    n_classes: usize,
    logits: &mut [f32],
) {
    /// Not a closure: nobody promises that one is inlined, and where it is not, the registers stay narrow.
    struct Decoding<'a, D, const N: usize>(
        [[&'a [u8]; N]; 2],
        usize,
        &'a mut [f32],
        PhantomData<D>,
    );
    impl<D: Dense, const N: usize> pulp::NullaryFnOnce for Decoding<'_, D, N> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            let Self([heads, bodies], n_classes, logits, _) = self;
            let rows = logits.chunks_exact_mut(n_classes).zip(heads).zip(bodies);
            for ((logits, head), body) in rows {
                D::row(head, body, logits);
            }
        }
    }
    pulp::Arch::new().dispatch(Decoding::<D, N>(columns, n_classes, logits, PhantomData));
}
