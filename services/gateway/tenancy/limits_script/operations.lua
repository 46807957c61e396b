-- The operations, of which one is run.
local function admit()
  if redis.call('ZSCORE', slots, ask.id) then
    -- The answer to an earlier attempt was lost on its way.
    return report({admitted = true})
  end
  local ahead = ask.queue and ahead_of_me() or 0
  local refused = refusal(ahead)
  if refused then
    if ask.queue and refused.limit == 'concurrency' and ahead < ask.queue then
      join_queue()
      return report({admitted = false, refusal = refused, ahead = ahead})
    end
    if ask.queue then
      leave_queue()
    end
    return report({admitted = false, refusal = refused})
  end
  if ask.queue then
    leave_queue()
  end
  for _, scope in ipairs(scopes) do
    if scope.limits.rpm then
      fill('requests' .. scope.suffix, scope.limits.rpm, 1)
    end
  end
  local lease = new_lease()
  lease.estimate, lease.output = ask.estimate, ask.output
  reserve(ask.model, ask.estimate + ask.output)
  hold(ask.id, lease)
  return report({admitted = true})
end

-- Whether the key has no room for anything, before it is known what a request needs. Nothing is taken.
local function peek()
  local refused = refusal(0)
  if refused and ask.queue and refused.limit == 'concurrency' then
    refused = nil
  end
  return report({admitted = not refused, refusal = refused})
end

-- Charges what the worker has counted so far, and takes the reservation back for it.
local function progress(lease)
  if ask.prompt then
    charge(math.max(0, ask.prompt - lease.prompt), 0)
    reserve(ask.model, -lease.estimate)
    lease.prompt, lease.estimate = math.max(lease.prompt, ask.prompt), 0
  end
  local new = math.max(0, ask.completion - lease.completion)
  local covered = math.min(new, lease.output)
  charge(0, new)
  reserve(ask.model, -covered)
  lease.completion, lease.output = lease.completion + new, lease.output - covered
end

-- The budget with the least room, and how many more tokens that has room for.
local function tightest_budget()
  local tightest, room
  for _, scope in ipairs(scopes) do
    for period in pairs(BUDGETS) do
      if scope.limits[period] then
        local left = scope.limits[period] - used(period, scope) - number_of('reserved' .. scope.suffix)
        if not room or left < room then
          tightest, room = {limit = period, scope = scope.name}, left
        end
      end
    end
  end
  return tightest, room
end

-- Reserves for what the answer may still become, as far as the budgets have room. Where a rate has none, the answer goes on, and
-- its debt is carried.
local function top_up(lease)
  local wanted = ask.reserve - lease.output
  if ask.max_output then
    wanted = math.min(wanted, ask.max_output - lease.completion - lease.output)
  end
  local _, room = tightest_budget()
  wanted = math.min(wanted, room or wanted)
  if wanted <= 0 or lease.output * 2 > ask.reserve then
    return
  end
  for _, scope in ipairs(scopes) do
    if tokens_refusal(scope, wanted) then
      return
    end
  end
  reserve(ask.model, wanted)
  lease.output = lease.output + wanted
end

local function renew()
  local memory = remembered(ask.id)
  if memory and memory.final then
    return cjson.encode({alive = false})
  end
  local lease = lease_of(ask.id) or new_lease(memory)
  progress(lease)
  top_up(lease)
  hold(ask.id, lease)
  local budget, room = tightest_budget()
  local is_whole = ask.max_output and lease.completion >= ask.max_output
  local answer = {alive = true, credit = lease.output}
  if budget and lease.output == 0 and not is_whole then
    answer.credit = math.max(0, math.min(room, ask.reserve))
    answer.spent = room <= 0 and budget or nil
  end
  return cjson.encode(answer)
end

local function settle()
  local memory = remembered(ask.id)
  if memory and memory.final then
    return cjson.encode({alive = false})
  end
  local lease = lease_of(ask.id) or new_lease(memory)
  charge(ask.prompt - lease.prompt, ask.completion - lease.completion)
  lease.prompt, lease.completion = ask.prompt, ask.completion
  finish(ask.id, lease, ask)
  remember(ask.id, ask.prompt, ask.completion, true)
  return cjson.encode({alive = true})
end

-- A caller that remembers a key, and did not look it up, says as what: only while it is still that is anything decided.
local function is_stale(proof)
  if redis.call('GET', shard .. ':secret:' .. proof.secret) ~= key_id then
    return true
  end
  local record = redis.call('HGETALL', shard .. ':key:' .. key_id)
  return redis.sha1hex(table.concat(record, '\0')) ~= proof.record
end

if ask.proof and is_stale(ask.proof) then
  return cjson.encode({stale = true})
end
shorten_leases()
reap()
if operation == 'admit' then
  return admit()
elseif operation == 'peek' then
  return peek()
elseif operation == 'renew' then
  return renew()
elseif operation == 'settle' then
  return settle()
end
return report({})
