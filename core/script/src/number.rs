//! Numbers as C's `printf("%.Ng")` spells them, which is how Lua, cjson and Redis do.

use std::fmt::Write as _;

/// Appends `value` with at most `precision` significant digits, like `%.{precision}g`.
pub fn put_g(out: &mut Vec<u8>, value: f64, precision: usize) {
    if value.is_nan() {
        out.extend_from_slice(if value.is_sign_negative() { b"-nan" } else { b"nan" });
        return;
    }
    if value.is_infinite() {
        out.extend_from_slice(if value < 0.0 { b"-inf" } else { b"inf" });
        return;
    }
    let precision = precision.max(1);
    let mut text = String::with_capacity(32);
    write!(text, "{:.*e}", precision - 1, value).expect("a string takes all that is written");
    let (mantissa, exponent) = text.split_once('e').expect("the format puts an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a small integer");
    if exponent < -4 || exponent >= precision as i32 {
        out.extend_from_slice(trim_zeros(mantissa).as_bytes());
        let sign = if exponent < 0 { '-' } else { '+' };
        out.extend_from_slice(format!("e{sign}{:02}", exponent.unsigned_abs()).as_bytes());
        return;
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    text.clear();
    write!(text, "{value:.decimals$}").expect("a string takes all that is written");
    out.extend_from_slice(trim_zeros(&text).as_bytes());
}

/// Appends a command's argument as Redis spells Lua's numbers: `%.17g`.
pub fn put_argument(out: &mut Vec<u8>, value: f64) {
    const EXACT: f64 = 1e15;
    if value.abs() < EXACT && value.fract() == 0.0 && !(value == 0.0 && value.is_sign_negative()) {
        out.extend_from_slice(format!("{}", value as i64).as_bytes());
    } else {
        put_g(out, value, 17);
    }
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spelled_like_printf() {
        #[rustfmt::skip] // columns
        let table = [
            (0.0, 17, "0"), (-0.0, 17, "-0"), (1.0, 14, "1"), (-3.5, 14, "-3.5"),
            (0.1, 17, "0.10000000000000001"), (0.1, 14, "0.1"), (1e100, 14, "1e+100"),
            (1e17, 17, "1e+17"), (1e16, 17, "10000000000000000"), (123456789012345.0, 14, "1.2345678901234e+14"),
            (0.0001, 14, "0.0001"), (0.00001, 14, "1e-05"), (1e23, 14, "1e+23"),
            (f64::INFINITY, 14, "inf"), (f64::NEG_INFINITY, 14, "-inf"), (99999999999999.9, 14, "1e+14"),
        ];
        for (value, precision, expected) in table {
            let mut out = Vec::new();
            put_g(&mut out, value, precision);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{value:?} with {precision}");
        }
    }
}
