//! Nodes that make a teacher's answer depend on chance, or on the other images of its batch.

use crate::graph::{Graph, Node};
use crate::model_file::ModelFile;

/// What a node does to the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It was exported as it is in training: batch statistics, or dropout.
    Training,
    /// It draws random numbers.
    Chance,
    /// It quantises by the largest and smallest value of the whole batch.
    DynamicQuantisation,
}

/// The first node that `output` depends on and that has this fault, as a person finds it in the file.
pub(crate) fn find(file: &ModelFile, output: &str, wanted: Fault) -> Option<String> {
    let behind = file.graph.behind(output, &file.functions);
    let mut found = behind
        .iter()
        .filter(|(graph, node)| fault_of(file, graph, node) == Some(wanted));
    found.next().map(|(_, node)| node.to_string())
}

fn fault_of(file: &ModelFile, graph: &Graph, node: &Node) -> Option<Fault> {
    match node.operator.as_str() {
        // Until operator set 13 it was the number of outputs that said so.
        "BatchNormalization" => {
            (node.int("training_mode", 0) != 0 || node.n_outputs() > 3).then_some(Fault::Training)
        }
        "Dropout" | "BiasDropout" => drops(file, graph, node).then_some(Fault::Training),
        "RandomNormal" | "RandomNormalLike" | "RandomUniform" | "RandomUniformLike"
        | "Bernoulli" | "Multinomial" => Some(Fault::Chance),
        "DynamicQuantizeLinear" | "DynamicQuantizeMatMul" | "DynamicQuantizeLSTM" => {
            Some(Fault::DynamicQuantisation)
        }
        _ => None,
    }
}

/// Whether a dropout is told to be in training, by a number that stands in the file, and drops anything.
fn drops(file: &ModelFile, graph: &Graph, node: &Node) -> bool {
    let input = |back: usize| {
        // `training_mode` is the last input of either operator, and `ratio` the one before it.
        let n_inputs = if node.operator == "Dropout" { 3 } else { 5 };
        let name = node
            .inputs
            .get(n_inputs - back)
            .filter(|name| !name.is_empty())?;
        graph.number(name).or_else(|| file.graph.number(name))
    };
    input(1).is_some_and(|training| training != 0.0) && input(2).is_none_or(|ratio| ratio > 0.0)
}
