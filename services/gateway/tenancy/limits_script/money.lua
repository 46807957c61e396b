-- Money: what tokens cost, in the smallest unit of the currency, and what a key has spent. Nothing here does anything
-- for a request without `prices`: the units that a million tokens of the prompt, of its cached part and of the output
-- cost.
local MILLION = 1000000
local WEEK_SECONDS = 15 * 86400
local COSTS = {'monthly_cost', 'weekly_cost', 'daily_cost'}

-- Return the cost of tokens, rounded up to a whole unit, as prices.py does. All numbers are below 2^53: a
-- price has at most 10 digits, and of each number of tokens only the rest of a million is multiplied with more.
local function cost_of(prices, prompt, cached, completion)
  local units, millionths = 0, MILLION - 1
  local function add(tokens, price)
    local rest = math.fmod(tokens, MILLION)
    units = units + (tokens - rest) / MILLION * price
    millionths = millionths + rest * price
  end
  cached = math.min(cached, prompt)
  add(prompt - cached, prices.prompt)
  add(cached, prices.cached)
  add(completion, prices.completion)
  return units + (millionths - math.fmod(millionths, MILLION)) / MILLION
end

-- Return the cost of a request once it has used all that is reserved for it, and `more` output tokens.
local function full_cost(reservation, more)
  return cost_of(reservation.prices, reservation.prompt + reservation.estimate, reservation.cached or 0,
    reservation.completion + reservation.output + more)
end

-- Return the name of the counters of a budget. Weeks begin on Mondays, as 1969-12-29 was one.
local function spending(period)
  if period == 'daily_cost' then
    return periods.daily
  elseif period == 'monthly_cost' then
    return periods.monthly
  end
  local days = math.floor(now / 86400000000)
  return string.format('%s:week:%04d-%02d-%02d', shard .. ':usage:' .. key_id, date(days - (days + 3) % 7))
end

-- Return what was spent in a period. A refund after the end of a period may exceed what was spent since; it makes no
-- budget larger.
local function spent(period, scope)
  local field = scope.name == 'key' and 'spent' or 'cost:' .. request.model
  return math.max(0, tonumber(redis.call('HGET', spending(period), field) or 0))
end

-- Return what is left of a budget in money; nil without one.
local function money_left(period, scope)
  local limit = scope.limits[period]
  return limit and limit - spent(period, scope) - number_of('reserved_cost' .. scope.suffix)
end

local function costs_something(prices)
  return prices.prompt > 0 or prices.cached > 0 or prices.completion > 0
end

-- Return the limit of a scope that does not allow to spend `amount`, or that has nothing left for a model with a price.
local function money_rejection(scope, amount)
  for _, period in ipairs(COSTS) do
    local left = money_left(period, scope)
    if left and (amount > left or left <= 0 and costs_something(request.prices)) then
      return {limit = period, scope = scope.name, wait = -1}
    end
  end
end

-- Return how many output tokens, at most `most`, may be added to a reservation for `left`.
local function affordable(reservation, left, most)
  local price = reservation.prices.completion
  if price == 0 then
    return most
  elseif left <= 0 then
    return 0
  end
  -- Rounding hides less than a unit.
  local number, now_reserved = math.min(most, math.floor((left + 1) / price * MILLION) + 1), full_cost(reservation, 0)
  while number > 0 and full_cost(reservation, number) - now_reserved > left do
    number = number - 1
  end
  return number
end

-- Record what the tokens of a reservation cost that were charged, and what those cost that are reserved: the difference
-- to what was recorded before. So the sum is the cost of all tokens of the request together, rounded once.
local function account(reservation)
  if not reservation.prices then
    return
  end
  local cost = cost_of(reservation.prices, reservation.prompt, reservation.cached or 0, reservation.completion)
  local held = math.max(0, full_cost(reservation, 0) - cost)
  local new, model = cost - (reservation.cost or 0), reservation.model
  if new ~= 0 then
    for _, period in ipairs(COSTS) do
      redis.call('HINCRBY', spending(period), 'spent', integer(new))
      redis.call('HINCRBY', spending(period), 'cost:' .. model, integer(new))
      redis.call('EXPIRE', spending(period), period == 'weekly_cost' and WEEK_SECONDS or USAGE_SECONDS)
    end
  end
  local more = held - (reservation.held or 0)
  if more ~= 0 then
    redis.call('HINCRBY', state, 'reserved_cost', integer(more))
    redis.call('HINCRBY', state, 'reserved_cost:' .. model, integer(more))
  end
  reservation.cost, reservation.held = cost, held
end
