/** Texts of the generated pages other than the documentation itself. */
export interface Words {
  language: "fa" | "en";
  direction: "rtl" | "ltr";
  title: string;
  description: string;
  brand: string;
  /** What the base URL in the Markdown stands for. */
  baseNote: string;
  copyPage: string;
  tagline: string;
  headline: string;
  lead: string;
  tryIt: string;
  readOn: string;
  facts: { term: string; meaning: string }[];
  skip: string;
  documentation: string;
  playground: string;
  reference: string;
  referenceLead: string;
  contents: string;
  search: string;
  searchHint: string;
  searchPlaceholder: string;
  searchEmpty: string;
  close: string;
  otherLanguage: string;
  theme: string;
  table: string;
  exampleLanguage: string;
  copy: string;
  copied: string;
  modelsLoading: string;
  playgroundLoading: string;
  footer: string;
  licences: string;
  required: string;
  parameters: string;
  request: string;
  requestBody: string;
  responseBody: string;
  errorExample: string;
  errorList: string;
  sendIt: string;
  key: string;
  send: string;
  stop: string;
  stopped: string;
  badJson: string;
  unreachable: string;
  response: string;
  seconds: string;
  keyboard: string;
  /** Keys, separated by spaces, and what they do. */
  keys: [string, string][];
  changes: string;
  changesLead: string;
  missingTitle: string;
  missingText: string;
  missingLink: string;
  responses: string;
  schemas: string;
  headers: string;
}

export const fa: Words = {
  language: "fa",
  direction: "rtl",
  title: "ویلیکس: مستندات و آزمایشگاه",
  description: "مدل‌های زبانی با یک نشانی و یک قالب: API سازگار با OpenAI، پاسخ استریم، فکرِ جدا از پاسخ.",
  brand: "ویلیکس",
  baseNote: "در این متن `https://HOST/api` نشانی پایهٔ API است: نشانی همین صفحه، با `api` در پایان آن.",
  copyPage: "کپی صفحه (Markdown)",
  tagline: "هوش مصنوعی روی زیرساخت خودتان",
  headline: "همهٔ مدل‌ها،<br>با یک نشانی.",
  lead:
    "همان SDK و قالبی که می‌شناسید. پاسخ را توکن به توکن بگیرید، فکر مدل را جدا از پاسخ ببینید " +
    "و مطمئن باشید هیچ حرف فارسی خراب نمی‌شود.",
  tryIt: "آزمایشگاه را باز کنید",
  readOn: "مستندات",
  facts: [
    { term: "سازگار با OpenAI", meaning: "فقط نشانی و کلید عوض می‌شود" },
    { term: "استریم، از نخستین توکن", meaning: "پشت هر پروکسی هم" },
    { term: "فارسی، سالم", meaning: "هیچ نویسه‌ای نصف نمی‌شود، نیم‌فاصله هم" },
  ],
  skip: "رفتن به متن",
  documentation: "مستندات",
  playground: "آزمایشگاه",
  reference: "مرجع API",
  referenceLead: "هر مسیر، هر فیلد و هر پاسخ؛ ساخته‌شده از همان سند OpenAPI که برنامه‌ها می‌خوانند.",
  contents: "فهرست",
  search: "جست‌وجو",
  searchHint: "جست‌وجو در صفحه",
  searchPlaceholder: "دنبال چه می‌گردید؟",
  searchEmpty: "چیزی پیدا نشد.",
  close: "بستن",
  otherLanguage: "English",
  theme: "روشن یا تاریک",
  table: "جدول",
  exampleLanguage: "زبان نمونه",
  copy: "کپی",
  copied: "کپی شد",
  modelsLoading: "در حال بارگذاری فهرست مدل‌ها…",
  playgroundLoading: "در حال بارگذاری آزمایشگاه…",
  footer: "ساخته برای فارسی‌زبانان",
  licences: "مجوزها",
  required: "الزامی",
  parameters: "پارامترها",
  request: "درخواست",
  requestBody: "بدنهٔ درخواست",
  responseBody: "فیلدهای پاسخ",
  errorExample: "خطا با وضعیت `4xx` یا `5xx` این شکل را دارد.".replace(/`(\w+)`/g, '<code dir="ltr">$1</code>'),
  errorList: "همهٔ خطاها",
  sendIt: "همین‌جا امتحان کنید",
  key: "کلید API (فقط در همین زبانهٔ مرورگر می‌ماند)",
  send: "ارسال",
  stop: "توقف",
  stopped: "متوقف شد",
  badJson: "بدنه JSON درستی نیست:",
  unreachable: "سرور در دسترس نیست.",
  response: "پاسخ",
  seconds: "ثانیه",
  keyboard: "میان‌برهای صفحه‌کلید",
  keys: [
    ["/", "جست‌وجو؛ Ctrl و K با هم نیز"],
    ["↑ ↓", "نتیجهٔ بعدی یا قبلی جست‌وجو"],
    ["Enter", "باز کردن نتیجه، یا فرستادن پیام در آزمایشگاه"],
    ["Shift Enter", "خط تازه در پیام"],
    ["Esc", "بستن پنجره، یا متوقف کردن پاسخ"],
    ["← →", "زبانهٔ بعدی یا قبلی در نمونه‌کدها"],
    ["?", "همین راهنما"],
  ],
  changes: "تغییرات API",
  changesLead: "چه چیزی در API عوض شده است، و روی چه چیزی می‌توانید حساب کنید.",
  missingTitle: "این صفحه وجود ندارد",
  missingText: "نشانی را بررسی کنید؛ شاید یکی از این‌ها را می‌خواستید:",
  missingLink: "نشانی پایهٔ API برای برنامه‌ها",
  responses: "پاسخ‌ها",
  schemas: "ساختارها",
  headers: "هدرها",
};

export const en: Words = {
  language: "en",
  direction: "ltr",
  title: "Vilix: documentation and playground",
  description:
    "Language models behind one URL in one format: OpenAI's API, streaming, and reasoning separate from answers.",
  brand: "Vilix",
  baseNote: "In this text, `https://HOST/api` is the API's base URL: the address of this page with `api` at its end.",
  copyPage: "Copy page (Markdown)",
  tagline: "AI on your own infrastructure",
  headline: "Every model,<br>one URL.",
  lead:
    "The SDK and the format that you know. Receive responses token by token, " +
    "with the model's reasoning separate from its answer, and never a broken letter.",
  tryIt: "Open the playground",
  readOn: "Documentation",
  facts: [
    { term: "OpenAI's format", meaning: "only the base URL and the key change" },
    { term: "Streams from the first token", meaning: "behind any proxy, too" },
    { term: "Text arrives intact", meaning: "no character is split, joiners included" },
  ],
  skip: "Skip to the text",
  documentation: "Documentation",
  playground: "Playground",
  reference: "API reference",
  referenceLead: "Every endpoint, field and response, generated from the OpenAPI document that programs read.",
  contents: "Contents",
  search: "Search",
  searchHint: "Search this page",
  searchPlaceholder: "What are you looking for?",
  searchEmpty: "Nothing found.",
  close: "Close",
  otherLanguage: "فارسی",
  theme: "Light or dark",
  table: "Table",
  exampleLanguage: "Language of the example",
  copy: "Copy",
  copied: "Copied",
  modelsLoading: "Loading the list of models…",
  playgroundLoading: "Loading the playground…",
  footer: "Persian first",
  licences: "Licences",
  required: "required",
  parameters: "Parameters",
  request: "Request",
  requestBody: "Request body",
  responseBody: "Fields of the response",
  errorExample: 'An error has status <code dir="ltr">4xx</code> or <code dir="ltr">5xx</code>, and this form.',
  errorList: "All errors",
  sendIt: "Try it",
  key: "API key (it stays in this tab)",
  send: "Send",
  stop: "Stop",
  stopped: "stopped",
  badJson: "The body is not valid JSON:",
  unreachable: "The server cannot be reached.",
  response: "Response",
  seconds: "s",
  keyboard: "Keyboard shortcuts",
  keys: [
    ["/", "Search; Ctrl and K together, too"],
    ["↑ ↓", "The next or previous result of a search"],
    ["Enter", "Open a result, or send a message in the playground"],
    ["Shift Enter", "A new line in a message"],
    ["Esc", "Close a dialog, or stop an answer"],
    ["← →", "The next or previous tab of an example"],
    ["?", "This help"],
  ],
  changes: "API changes",
  changesLead: "What has changed in the API, and what you can rely on.",
  missingTitle: "There is no such page",
  missingText: "Check the address. You may have been looking for one of these:",
  missingLink: "The API's base URL, for programs",
  responses: "Responses",
  schemas: "Objects",
  headers: "Headers",
};
