// Ten thousand connections with fresh ids.
"use strict";
require("strangers.cjs")(10_000);
