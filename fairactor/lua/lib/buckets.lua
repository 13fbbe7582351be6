-- The buckets of the history. There is a string for each stretch of time and each kind of names: a map of names, each with
-- the rank by which the least active one makes room for another, and then with its sums.

local add_to_buckets
do
  local SUMS = 38 -- numbers of a series, as in history.py
  local MOST = 50 -- names of a kind in a bucket
  -- Seconds of a bucket, and ms for which it is kept: an hour, and three days; a little longer, until it is read no more.
  local RESOLUTIONS = { { 60, 3720000 }, { 600, 260400000 } }
  local KINDS = { 'all', 'actor', 'queue', 'tenant' }

  -- Returns the least active name, and its rank.
  local function least_of(bucket)
    local least, rank
    for name, sums in pairs(bucket) do
      if not rank or sums[1] < rank then least, rank = name, sums[1] end
    end
    return least, rank
  end

  -- Adds reported sums to a bucket. A full one keeps the most active names by the algorithm "space saving" (Metwally et al.
  -- 2005): a new name takes the place of the least active one, and inherits its rank, but not its sums.
  local function add(bucket, reported)
    local number = 0
    for name, sums in pairs(bucket) do
      if #sums == SUMS + 1 then number = number + 1 else bucket[name] = nil end
    end
    for name, sums in pairs(reported) do
      local own = bucket[name]
      if own then
        for i = 1, SUMS + 1 do own[i] = own[i] + sums[i] end
      else
        if number < MOST then
          number = number + 1
        else
          local least, rank = least_of(bucket)
          bucket[least] = nil
          sums = { sums[1] + rank, unpack(sums, 2) }
        end
        bucket[name] = sums
      end
    end
    return cmsgpack.pack(bucket)
  end

  -- Returns a stored bucket with reported sums. One that somebody has damaged begins again.
  local function with(stored, reported)
    local readable, packed = pcall(function() return add(cmsgpack.unpack(stored), reported) end)
    return readable and packed or add({}, reported)
  end

  -- Returns the writes that add a report to the buckets of a moment, given in seconds: keys, values, ms to keep them.
  function add_to_buckets(now, report)
    local writes = {}
    for _, resolution in ipairs(RESOLUTIONS) do
      local seconds, ms = unpack(resolution)
      for i, kind in ipairs(KINDS) do
        if next(report[i]) then
          local key = string.format('%s%d:%d:%s', BUCKETS, seconds, math.floor(now / seconds), kind)
          local stored = redis.call('GET', key)
          writes[#writes + 1] = { key = key, value = with(stored or '\128', report[i]), ms = ms }
        end
      end
    end
    return writes
  end
end
