// A hundred thousand connections with fresh ids.
"use strict";
require("strangers.cjs")(100_000);
