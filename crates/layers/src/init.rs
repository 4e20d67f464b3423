//! Initial values of parameters.

use logitcask_philox::{Purpose, Stream};

/// How a parameter starts. Fans are those of PyTorch: `fan_in = (I / groups) * kH * kW`, `fan_out = O * kH * kW / groups`
/// times `groups` as PyTorch counts it, that is `O * kH * kW`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Every element the same.
    Constant(f64),
    /// Draws from a normal distribution.
    Normal {
        /// Mean of the distribution.
        mean: f64,
        /// Standard deviation of the distribution.
        std: f64,
    },
    /// Uniform between two numbers.
    Uniform {
        /// The lower end of the range.
        low: f64,
        /// The upper end of the range.
        high: f64,
    },
    /// Normal with variance `2 / fan_out`: `kaiming_normal_(mode="fan_out", nonlinearity="relu")`.
    KaimingFanOut,
    /// Normal with variance `2 / fan_in`: `kaiming_normal_(mode="fan_in", nonlinearity="relu")`.
    KaimingFanIn,
    /// Uniform in `±1 / sqrt(fan_in)`: what PyTorch's `Conv2d` and `Linear` do when left alone.
    UniformFanIn,
}

impl Init {
    /// Draws a parameter of `shape` in PyTorch's layout, row-major: `(O, I / groups, kH, kW)`, `(O, I)` or `(C)`.
    ///
    /// The draw depends on the seed and on the parameter's number, in order of creation, alone. Normal values are made
    /// in f64 by Box and Muller's method, two from two draws, with `libm` so that every platform agrees.
    pub(crate) fn draw(self, seed: u64, number: u64, shape: &[usize], fan_in: usize) -> Vec<f32> {
        let len = shape.iter().product();
        let fan_out =
            shape.first().map_or(1, |&outputs| outputs) * shape.iter().skip(2).product::<usize>();
        let stream = Stream::new(seed, Purpose::Init, [0, number, 0]);
        match self {
            Self::Constant(value) => vec![value as f32; len],
            Self::Normal { mean, std } => normal(stream, mean, std, len),
            Self::Uniform { low, high } => {
                uniform(stream, 0.5 * (low + high), 0.5 * (high - low), len)
            }
            Self::KaimingFanOut => normal(stream, 0.0, (2.0 / fan_out as f64).sqrt(), len),
            Self::KaimingFanIn => normal(stream, 0.0, (2.0 / fan_in as f64).sqrt(), len),
            Self::UniformFanIn => uniform(stream, 0.0, 1.0 / (fan_in as f64).sqrt(), len),
        }
    }
}

fn normal(mut stream: Stream, mean: f64, std: f64, len: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(len + 1);
    while values.len() < len {
        // 1 - u is in (0, 1], so the logarithm is finite.
        let radius = std * libm::sqrt(-2.0 * libm::log(1.0 - stream.uniform()));
        let angle = std::f64::consts::TAU * stream.uniform();
        values.push((mean + radius * libm::cos(angle)) as f32);
        values.push((mean + radius * libm::sin(angle)) as f32);
    }
    values.truncate(len);
    values
}

fn uniform(mut stream: Stream, middle: f64, bound: f64, len: usize) -> Vec<f32> {
    (0..len)
        .map(|_| (middle + (2.0 * stream.uniform() - 1.0) * bound) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_asked_for() {
        let shape = [64, 32, 3, 3];
        let values = Init::KaimingFanOut.draw(1, 0, &shape, 32 * 9);
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let var = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n;
        let expected = 2.0 / (64.0 * 9.0);
        assert!(mean.abs() < 4.0 * (expected / n).sqrt(), "{mean}");
        assert!(
            (var / expected - 1.0).abs() < 4.0 * (2.0 / n).sqrt(),
            "{var}"
        );

        let bound = 1.0 / (32f64 * 9.0).sqrt();
        let values = Init::UniformFanIn.draw(1, 0, &shape, 32 * 9);
        assert!(values.iter().all(|&v| f64::from(v).abs() <= bound));
    }

    #[test]
    fn seed_and_number_decide() {
        let draw = |seed, number| Init::KaimingFanIn.draw(seed, number, &[4, 5], 5);
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }
}
