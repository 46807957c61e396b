/** Words that readers search for, and the words of the documentation that mean the same, in both languages. */

const GROUPS = [
  "استریم|استریمینگ|جریانی|تکه تکه|stream|streaming|sse|server-sent events|وب سوکت|websocket",
  "اندپوینت|اند پوینت|endpoint|مسیر|route|path",
  "نشانی|آدرس|url|base url|بیس یو آر ال|لینک",
  "امبدینگ|امبدینگز|امبد|embedding|embeddings|بردار|وکتور|vector",
  "پلی گراند|playground|آزمایشگاه",
  "ریت لیمیت|rate limit|ratelimit|لیمیت|محدودیت|سقف|limit",
  "هزینه|قیمت|تعرفه|سهمیه|کوتا|quota|price|pricing|cost|budget|billing|صورتحساب",
  "تایم اوت|timeout|time out|مهلت|504",
  "لیست مدل|لیست مدل ها|فهرست مدل|models|مدل ها",
  "vision|تصویر|تصاویر|عکس|ایمیج|image|images|بینایی",
  "function calling|function call|فانکشن|فراخوانی تابع|فراخوانی ابزار|ابزار|ابزارها|tool|tools|تول|تابع|function",
  "دما|temperature|تنوع|خلاقیت",
  "استدلال|فکر|تفکر|thinking|reasoning|تگ|think|زنجیره فکر|cot",
  "پروکسی|پراکسی|proxy|nginx|انجین ایکس|cloudflare|کلودفلر",
  "احراز هویت|کلید|api key|apikey|ای پی آی کی|authentication|auth|لاگین|login|ورود|bearer|authorization",
  "خطا|ارور|error|errors|باگ|مشکل",
  "خروجی ساختاریافته|structured output|structured|json schema|json|جیسون|اسکیما|schema",
  "مصرف|usage|آمار مصرف",
  "نصب|install|pip|npm|راه اندازی|شروع|start|quickstart",
  "پایتون|python|from openai import",
  "جاوااسکریپت|جاوا اسکریپت|javascript|node|نود|typescript|تایپ اسکریپت",
  "کرل|curl",
  "پنجره متن|کانتکست|context|طول متن|context window|طول زمینه",
  "پرامپت|prompt",
  "سیستم پرامپت|پیام سیستم|system prompt|system message|system",
  "چت|گفت و گو|گفتگو|chat|مکالمه",
  "جست و جو|جستجو|سرچ|search|rag|بازیابی",
  "جی آر پی سی|grpc|سرویس داخلی|internal",
  "هدر|header|headers|سرآیند",
  "تریس|ردیابی|trace|traces|tracing|opentelemetry|traceparent",
  "توکنایزر|tokenizer|tokenize|شمارش توکن|توکن شمار",
  "max tokens|max_tokens|سقف توکن|طول پاسخ|بیشترین طول",
  "خرابی|قطع|503|در دسترس نیست|unavailable|down|وضعیت|status|سلامت|health",
  "تلاش دوباره|ریترای|retry|retry-after",
  "بک اند|سرور|server",
  "لنگ چین|langchain",
  "اوپن ای آی|openai|sdk|اس دی کی|کتابخانه",
  "گرامر|grammar|دستور زبان|regex|عبارت منظم|عبارت باقاعده|گایدد|guided",
  "کش|cache|cached",
  "توکن|token|tokens",
  "نیم فاصله|نیمفاصله|zwnj|non-joiner|joiner|فاصله مجازی",
  "سید|seed|تکرارپذیر",
  "ویرایشگر|ادیتور|editor|ide|vs code|vscode|وی اس کد|جت برینز|jetbrains|zed|cursor|کرسر|افزونه|extension",
  "ایجنت|عامل|agent|codex|claude code|کلاد کد|کدکس",
  "مهاجرت|تغییرات|changelog|نسخه|version|deprecation",
  "نرمال سازی|یکسان سازی|املا|normalization|text_normalization",
  "ذخیره|store|stored|previous_response_id|حافظه گفتگو",
];

const WORDS = GROUPS.map((group) => group.split("|"));

/** Returns the groups of words with the same meaning. */
export function synonyms(): readonly string[][] {
  return WORDS;
}
