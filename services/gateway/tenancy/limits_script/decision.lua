-- The decision: whether there is room, the limit that has none, and how the limits stand.
-- Why so many more tokens cannot be had in a scope: the limit, and the time until they could (-1: never).
local function tokens_rejection(scope, amount)
  local limits, reserved = scope.limits, number_of('reserved' .. scope.suffix)
  for _, period in ipairs({'monthly', 'daily'}) do
    if limits[period] then
      if used(period, scope) + reserved + amount > limits[period] then
        return {limit = period, scope = scope.name, wait = -1}
      end
    end
  end
  if limits.tpm then
    local missing = level('tokens' .. scope.suffix, limits.tpm) + (reserved + amount - limits.tpm) * MINUTE
    if missing > 0 then
      local wait = amount > limits.tpm and -1 or math.ceil(missing / limits.tpm)
      return {limit = 'tpm', scope = scope.name, wait = wait}
    end
  end
end

local function requests_rejection(scope)
  local rpm = scope.limits.rpm
  if rpm then
    local missing = level('requests' .. scope.suffix, rpm) + (1 - rpm) * MINUTE
    if missing > 0 then
      return {limit = 'rpm', scope = scope.name, wait = math.ceil(missing / rpm)}
    end
  end
end

local function running(scope)
  return redis.call('ZCOUNT', slots .. scope.suffix, '(' .. whole(now), '+inf')
end

local function slot_rejection(scope, ahead)
  local concurrency = scope.limits.concurrency
  if concurrency and running(scope) + ahead >= concurrency then
    return {limit = 'concurrency', scope = scope.name, wait = 0}
  end
end

local BUDGETS = {daily = true, monthly = true}

-- The limit that stands in the way for longest: a budget, then what never fits, then the longest wait, then a slot.
local function rejection(ahead)
  local worst
  local function consider(found)
    if found and not (worst and BUDGETS[worst.limit]) then
      local longer = worst and worst.wait ~= -1 and (found.wait == -1 or found.wait > worst.wait)
      if not worst or BUDGETS[found.limit] or longer then
        worst = found
      end
    end
  end
  for _, scope in ipairs(scopes) do
    consider(tokens_rejection(scope, ask.estimate + ask.output))
    consider(requests_rejection(scope))
  end
  for _, scope in ipairs(scopes) do
    consider(slot_rejection(scope, ahead))
  end
  return worst
end

-- The state of both scopes.
local function report(answer)
  answer.seconds = math.floor(now / 1000000)
  answer.scopes = {}
  for _, scope in ipairs(scopes) do
    local limits, reserved = scope.limits, number_of('reserved' .. scope.suffix)
    local shown = {reserved = reserved}
    if operation == 'show' or answer.rejection then
      shown.slots, shown.daily, shown.monthly = running(scope), used('daily', scope), used('monthly', scope)
    end
    if limits.rpm then
      local filled = level('requests' .. scope.suffix, limits.rpm)
      shown.requests = math.max(0, math.floor(limits.rpm - filled / MINUTE))
      shown.requests_reset = math.ceil(filled / limits.rpm)
    end
    if limits.tpm then
      local filled = level('tokens' .. scope.suffix, limits.tpm) + reserved * MINUTE
      shown.tokens = math.max(0, math.floor(limits.tpm - filled / MINUTE))
      shown.tokens_reset = math.ceil(filled / limits.tpm)
    end
    answer.scopes[scope.name] = shown
  end
  return cjson.encode(answer)
end
