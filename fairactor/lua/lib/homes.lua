-- Runtimes that serve certain tenants only. Such a runtime is the home of those that are assigned to it.
--
-- Each home has a virtual time of its own: its tenants may be served faster or slower than all others, and one that
-- arrives among them must neither wait for what those have had more, nor gain by what they have had less.

local has_homes = call('EXISTS', HOMES) == 1

-- The virtual time of a tenant's home, the latest where it has several; nil without one.
local function home_time(name)
  local latest
  local homes = has_homes and call('HGETALL', HOMES) or {}
  for i = 1, #homes, 2 do
    if call('SISMEMBER', ASSIGNED .. homes[i], name) == 1 then
      latest = math.max(latest or 0, tonumber(homes[i + 1]))
    end
  end
  return latest
end

-- Wakes one runtime that would take more work of any tenant; it wakes the next if it leaves any. A runtime that was
-- killed hears nothing (PUBLISH counts who did), so the next one is tried.
local function wake_idle()
  for _ = 1, 8 do
    local runtime = call('SPOP', IDLE)
    if not runtime or call('PUBLISH', INBOX .. runtime, 'w') > 0 then return end
  end
end

-- Wakes all that serve certain tenants only, and some of these.
local function wake_homes(names)
  for _, runtime in ipairs(has_homes and call('SMEMBERS', IDLE_HOMES) or {}) do
    for _, name in ipairs(names) do
      if call('SISMEMBER', ASSIGNED .. runtime, name) == 1 or call('SISMEMBER', STEAL .. runtime, name) == 1 then
        call('SREM', IDLE_HOMES, runtime)
        call('PUBLISH', INBOX .. runtime, 'w')
        break
      end
    end
  end
end

-- Whether a runtime serves tenants of all kinds, first or last.
local function serves_all(runtime)
  return not has_homes or call('HEXISTS', HOMES, runtime) == 0 or call('SISMEMBER', STEAL .. runtime, '') == 1
end
