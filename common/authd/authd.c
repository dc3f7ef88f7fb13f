#include "common/authd/authd.h"
struct authd authd;
