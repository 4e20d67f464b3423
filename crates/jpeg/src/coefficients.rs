//! The coefficients of all blocks, where a file brings them in several scans.

use crate::header::Header;

/// The coefficients of all blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coefficients {
    components: [Vec<[i16; 64]>; 4],
    /// Blocks in a row of each component, with those that fill its last MCU.
    across: [usize; 4],
}

impl Coefficients {
    /// All zero, for the blocks of this image.
    pub(crate) fn clear(&mut self, header: &Header) {
        let [n_rows, n_columns] = header.mcus();
        for (i, component) in header.components.iter().enumerate() {
            self.across[i] = n_columns * component.across;
            self.components[i].clear();
            let n_blocks = n_rows * component.down * self.across[i];
            self.components[i].resize(n_blocks, [0; 64]);
        }
    }

    pub(crate) fn block(&self, component: usize, row: usize, column: usize) -> &[i16; 64] {
        &self.components[component][row * self.across[component] + column]
    }

    pub(crate) fn block_mut(
        &mut self,
        component: usize,
        row: usize,
        column: usize,
    ) -> &mut [i16; 64] {
        &mut self.components[component][row * self.across[component] + column]
    }

    /// A block's first coefficient; 0 below the last row.
    pub(crate) fn average(&self, component: usize, row: usize, column: usize) -> i32 {
        let block = self.components[component].get(row * self.across[component] + column);
        block.map_or(0, |block| block[0].into())
    }
}
