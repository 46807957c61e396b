// First: it takes the key out of the address.
import "./key-link.ts";

import { examples } from "./documentation/examples.ts";
import { fill } from "./documentation/fill.ts";
import { followScroll } from "./documentation/follow-scroll.ts";
import { keyboardHelp } from "./documentation/keyboard.ts";
import { showModels } from "./documentation/model-list.ts";
import { search } from "./documentation/search.ts";
import { tryIt } from "./documentation/try-it.ts";
import { views } from "./documentation/views.ts";
import { themeToggle } from "./theme.ts";

themeToggle();
examples();
followScroll();
search();
keyboardHelp();
tryIt();
views();
void fill();
void showModels();
