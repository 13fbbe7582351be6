-- Dedicated runtimes, which serve certain tenants only.
--
-- Each has its own virtual time, since its tenants may be served faster or slower than others: one that arrives must
-- neither wait nor gain by that. It is never behind the shard's, since all other runtimes serve every tenant.

-- @include lib/base.lua

local dedicated = {} -- runtime -> its virtual time
do
  local flat = call('HGETALL', HOMES)
  for i = 1, #flat, 2 do dedicated[flat[i]] = tonumber(flat[i + 1]) end
end
local reassigned, reassigned_tenants -- a runtime whose tenants change here, and its new ones

-- Returns the latest virtual time of a tenant's dedicated runtimes, or nil.
local function dedicated_time(name)
  local latest
  for runtime, time in pairs(dedicated) do
    local serves_it
    if runtime == reassigned then
      serves_it = reassigned_tenants[name]
    else
      serves_it = call('SISMEMBER', ASSIGNED .. runtime, name) == 1
    end
    if serves_it then latest = math.max(latest or shard.virtual, time) end
  end
  return latest
end

-- Wakes one runtime that would take more work of any tenant; it wakes the next if it leaves any. A killed runtime
-- receives nothing (PUBLISH returns how many did), so the next one is tried.
local function wake_idle()
  for _ = 1, 8 do
    local runtime = call('SPOP', IDLE)
    if not runtime or call('PUBLISH', INBOX .. runtime, 'w') > 0 then return end
  end
end

-- Wakes the dedicated runtimes that serve some of these tenants.
local function wake_dedicated(names)
  for _, runtime in ipairs(next(dedicated) and call('SMEMBERS', IDLE_HOMES) or {}) do
    for _, name in ipairs(names) do
      if call('SISMEMBER', ASSIGNED .. runtime, name) == 1 or call('SISMEMBER', STEAL .. runtime, name) == 1 then
        call('SREM', IDLE_HOMES, runtime)
        call('PUBLISH', INBOX .. runtime, 'w')
        break
      end
    end
  end
end

-- Wakes all dedicated runtimes and one of the others: one that leaves or serves others now may have been the only one
-- that knew of work, or how long to sleep.
local function wake_all()
  wake_idle()
  for _, runtime in ipairs(next(dedicated) and call('SMEMBERS', IDLE_HOMES) or {}) do
    call('SREM', IDLE_HOMES, runtime)
    call('PUBLISH', INBOX .. runtime, 'w')
  end
end

-- Whether a runtime serves all tenants, if only when its own have no work.
local function serves_all(runtime)
  return not dedicated[runtime] or call('SISMEMBER', STEAL .. runtime, '') == 1
end
