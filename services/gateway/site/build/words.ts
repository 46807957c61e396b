/** Texts of the generated pages other than the documentation itself. */
export interface Words {
  language: "fa" | "en";
  direction: "rtl" | "ltr";
  title: string;
  description: string;
  brand: string;
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
  requestBody: string;
  responses: string;
  schemas: string;
  headers: string;
}

export const fa: Words = {
  language: "fa",
  direction: "rtl",
  title: "ویلیکس: مستندات و آزمایشگاه",
  description: "مدل‌های زبانی با یک نشانی و یک قالب: API سازگار با OpenAI، پاسخ تکه‌تکه، فکرِ جدا از پاسخ.",
  brand: "ویلیکس",
  tagline: "هوش مصنوعی روی زیرساخت خودتان",
  headline: "همهٔ مدل‌ها،<br>با یک نشانی.",
  lead:
    "همان SDK که می‌شناسید، با همان قالب. پاسخ را توکن به توکن بگیرید، فکر مدل را جدا از پاسخ ببینید " +
    "و مطمئن باشید هیچ حرف فارسی در راه نمی‌شکند.",
  tryIt: "آزمایشگاه را باز کنید",
  readOn: "مستندات",
  facts: [
    { term: "سازگار با OpenAI", meaning: "تنها نشانی و کلید عوض می‌شود" },
    { term: "تکه‌تکه، از نخستین توکن", meaning: "پشت هر پراکسی هم" },
    { term: "فارسی، سالم", meaning: "نیم‌فاصله و ایموجی هم نصف نمی‌شوند" },
  ],
  skip: "رفتن به متن",
  documentation: "مستندات",
  playground: "آزمایشگاه",
  reference: "مرجع API",
  referenceLead: "هر مسیر، هر فیلد و هر پاسخ؛ برآمده از همان سند OpenAPI که برنامه‌ها می‌خوانند.",
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
  modelsLoading: "فهرست مدل‌ها در راه است…",
  playgroundLoading: "آزمایشگاه در راه است…",
  footer: "ساخته برای فارسی‌زبانان",
  licences: "مجوزها",
  required: "الزامی",
  parameters: "پارامترها",
  requestBody: "بدنهٔ درخواست",
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
    { term: "Text arrives intact", meaning: "no letter, joiner or emoji is split" },
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
  requestBody: "Request body",
  responses: "Responses",
  schemas: "Objects",
  headers: "Headers",
};
