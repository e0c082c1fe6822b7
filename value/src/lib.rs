//! EDN values: model, one total order, text.
