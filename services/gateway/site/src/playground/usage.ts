/** What a key has used and what is left of its limits, as `GET /usage` states it. */

export interface Counts {
  requests: number;
  prompt_tokens: number;
  completion_tokens: number;
  /** In the smallest unit of the currency, if models have prices. */
  cost?: number;
}

export interface Period extends Counts {
  /** When the next period begins. */
  ends: string;
  models: Record<string, Counts>;
}

/** The limits in money. */
const COSTS = ["daily_cost", "weekly_cost", "monthly_cost"] as const;
export const LIMITS = ["rpm", "tpm", "concurrency", "daily_tokens", "monthly_tokens", ...COSTS] as const;
export type LimitName = (typeof LIMITS)[number];
export type Limits = Partial<Record<LimitName, number | null>>;

export interface KeyUsage {
  today: Period;
  month: Period;
  limits: Limits;
  remaining: Limits;
  /** The stricter limits of single models. */
  model_limits: Record<string, Limits>;
  currency?: string;
  /** The smallest unit of the currency is 10 to the power of minus this number. */
  decimals?: number;
}

export function isCost(name: LimitName): boolean {
  return COSTS.some((cost) => cost === name);
}

export function tokensOf({ prompt_tokens, completion_tokens }: Counts): number {
  return prompt_tokens + completion_tokens;
}

/** Returns the limits that the key has, with what is left of each. */
export function limitRows({ limits, remaining }: KeyUsage): { name: LimitName; limit: number; left: number }[] {
  return LIMITS.flatMap((name) => {
    const limit = limits[name];
    if (limit == null) return [];
    return [{ name, limit, left: Math.min(limit, Math.max(0, remaining[name] ?? 0)) }];
  });
}

/** Returns the tokens of each model today and this month, the most used model first. */
export function modelRows({ today, month }: KeyUsage): { model: string; today: number; month: number }[] {
  const tokens = (counts: Counts | undefined) => (counts ? tokensOf(counts) : 0);
  return Object.keys({ ...month.models, ...today.models })
    .map((model) => ({ model, today: tokens(today.models[model]), month: tokens(month.models[model]) }))
    .sort((one, other) => other.month - one.month);
}
