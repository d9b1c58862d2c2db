mod malformed;
mod properties;
mod skew;
mod values;
