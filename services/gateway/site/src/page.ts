import { examples } from "./documentation/examples.ts";
import { fill } from "./documentation/fill.ts";
import { followScroll } from "./documentation/follow-scroll.ts";
import { showModels } from "./documentation/model-list.ts";
import { search } from "./documentation/search.ts";
import { views } from "./documentation/views.ts";
import { themeToggle } from "./theme.ts";

themeToggle();
examples();
followScroll();
search();
views();
void fill();
void showModels();
