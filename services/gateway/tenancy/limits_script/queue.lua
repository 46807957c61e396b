-- The queue of requests that wait for a slot, for keys whose tier has one.
-- Waiting requests that were not seen for a second belong to clients that are gone.
local function ahead_of_me()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', seen, '(' .. whole(now), '+inf')) do
    redis.call('ZADD', seen, whole(now), id)
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', whole(now - 1000000))) do
    redis.call('ZREM', seen, id)
    redis.call('ZREM', waiting, id)
  end
  return redis.call('ZRANK', waiting, ask.id) or redis.call('ZCARD', waiting)
end

local function join_queue()
  -- Behind all others, also where they came before the clock went back.
  local last = redis.call('ZRANGE', waiting, -1, -1, 'WITHSCORES')[2]
  redis.call('ZADD', waiting, 'NX', whole(math.max(now, last and tonumber(last) + 1 or 0)), ask.id)
  redis.call('ZADD', seen, whole(now), ask.id)
  redis.call('EXPIRE', waiting, 60)
  redis.call('EXPIRE', seen, 60)
end

local function leave_queue()
  redis.call('ZREM', waiting, ask.id)
  redis.call('ZREM', seen, ask.id)
end
